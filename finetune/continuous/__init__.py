"""Valence and arousal over time: ``python -m finetune continuous --config configs/finetune/continuous.yaml``."""

from finetune.continuous.job import main

__all__ = ["main"]
