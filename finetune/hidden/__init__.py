"""What the numbers of finished runs hide: ``python -m finetune hidden RUN ... --out DIR``."""

from finetune.hidden.job import main

__all__ = ["main"]
