"""Self-supervised pre-training: ``python -m pretrain fit --config configs/pretrain/base.yaml``."""
