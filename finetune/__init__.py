"""Emotion recognition: ``python -m finetune fit --config configs/finetune/demo.yaml``."""
