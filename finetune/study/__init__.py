"""A grid of pre-trainings, fine-tunings, seeds and folds from one file: ``python -m finetune study FILE``."""

from finetune.study.job import main

__all__ = ["main"]
