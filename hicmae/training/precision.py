"""Number formats that a device can compute in, and what it falls back to."""

from __future__ import annotations

import logging

import torch

logger = logging.getLogger(__name__)

_TENSOR_CORES = (7, 0)
"""Compute capability from which GPUs multiply float16 in hardware of its own."""


def has_bfloat16() -> bool:
    """Whether the current GPU computes in bfloat16; PyTorch also emulates it on older ones, slower than float32."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def usable_precision(precision: str, accelerator: str) -> str:
    """The trainer's precision, or what comes nearest to it where the device has no bfloat16, with a warning.

    A GPU with float16 alone (V100, T4) takes ``16-mixed``, in which the paper trained on V100s: products in float16,
    and the loss scaled so that small gradients are not lost. A step whose gradients overflow at the current scale is
    left out and the scale halved; a *loss* that is not finite still ends the job (``StepStatus``).

    Args:
        precision: as the trainer takes it; one without ``bf16`` is left alone.
        accelerator: as the trainer takes it.
    """
    if "bf16" not in precision:
        return precision
    if accelerator not in ("gpu", "cuda", "auto") or not torch.cuda.is_available():
        logger.warning(
            "trainer.precision=%s without a GPU: training in 32-true, for bfloat16 is taken on GPUs alone. Set "
            "trainer.precision=32-true to do without this warning", precision,
        )  # fmt: skip
        return "32-true"
    if has_bfloat16():
        return precision
    if torch.cuda.get_device_capability() >= _TENSOR_CORES:
        logger.warning(
            "trainer.precision=%s: %s has no bfloat16 (GPUs of compute capability 8.0 and above do); training in "
            "16-mixed instead, as fast and as small, but a step is left out whenever float16 overflows. Set "
            "trainer.precision=16-mixed to do without this warning, or 32-true for float32: slower, and about twice "
            "the memory for activations", precision, torch.cuda.get_device_name(),
        )  # fmt: skip
        return "16-mixed"
    logger.warning(
        "trainer.precision=%s: %s has neither bfloat16 nor fast float16; training in 32-true instead, which takes "
        "about twice the memory for activations. Set trainer.precision=32-true to do without this warning, and a "
        "smaller data.batch_size or model.speed.recompute=blocks where memory is short",
        precision, torch.cuda.get_device_name(),
    )  # fmt: skip
    return "32-true"
