"""Which attention kernel a GPU job runs, said once at its start; a warning where only the slow one is left."""

from __future__ import annotations

import logging
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn.attention import SDPBackend

from hicmae.config import ModelConfig
from hicmae.pretraining import HiCMAE

logger = logging.getLogger(__name__)

_NAMES = {
    SDPBackend.FLASH_ATTENTION: "flash",
    SDPBackend.CUDNN_ATTENTION: "cuDNN",
    SDPBackend.EFFICIENT_ATTENTION: "memory-efficient",
    SDPBackend.MATH: "math",
}
_TYPES = {
    "bf16-mixed": torch.bfloat16,
    "bf16-true": torch.bfloat16,
    "16-mixed": torch.float16,
    "16-true": torch.float16,
}


def attention_kernel(heads: int, head_width: int, tokens: int, dtype: torch.dtype, device: torch.device) -> str:
    """What PyTorch chooses for self-attention in training: flash, cuDNN, memory-efficient or math.

    Args:
        heads, head_width, tokens: of the queries, keys and values.
        dtype: of their values.
        device: where they lie.
    """
    q = torch.empty(1, heads, tokens, head_width, dtype=dtype, device=device, requires_grad=True)
    chosen = SDPBackend(torch._fused_sdp_choice(q, q, q))
    return _NAMES.get(chosen, chosen.name.lower())


def report_attention(
    config: ModelConfig, *, decodes: bool, tokens: int, dtype: torch.dtype, device: torch.device
) -> None:
    """Log the kernels of a model's head sizes, and warn where one is ``math``.

    Args:
        config: the architecture.
        decodes: whether it has decoders too, whose layers then see all tokens; the encoders do so without.
        tokens: most tokens of a clip in one attention.
        dtype, device: of the products.
    """
    sizes = [("encoder", config.heads, config.width // config.heads, config.depth)]
    if decodes:
        sizes.append(("decoder", config.decoder_heads, config.decoder_width // config.decoder_heads,
                      config.decoder_depth))  # fmt: skip
    kernels = {part: attention_kernel(heads, width, tokens, dtype, device) for part, heads, width, _ in sizes}
    kind = str(dtype).removeprefix("torch.")
    listed = ", ".join(f"{part} {kernels[part]} (heads of {width}, {kind})" for part, _, width, _ in sizes)
    logger.info("attention kernels: %s", listed)
    part, heads, width, layers = sizes[-1]
    if kernels[part] == "math":
        matrix = heads * tokens**2 * dtype.itemsize
        logger.warning(
            "no fused attention kernel for %s heads of %d in %s on this GPU: every attention writes its matrix, "
            "%d x %d x %d numbers or %.1f MB a clip and layer, of which %d %s layers keep %.0f MB a clip for the "
            "backward pass, and reads it again. The fused kernels (bfloat16 or float16, a GPU of compute capability "
            "7.5 or above) write none; model.speed.recompute=blocks keeps one layer's at a time",
            part, width, kind, heads, tokens, tokens, matrix / 1e6, layers, part, layers * matrix / 1e6,
        )  # fmt: skip


class AttentionReport(Callback):
    """Reports at the start of a training on a GPU."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if pl_module.device.type != "cuda" or not trainer.is_global_zero:
            return
        module: Any = pl_module
        config: ModelConfig = module.config
        sees = "video" in module.model.modalities
        report_attention(
            config,
            decodes=isinstance(module.model, HiCMAE),
            tokens=config.video_tokens if sees else config.audio_tokens,
            dtype=_TYPES.get(str(trainer.precision), torch.float32),
            device=pl_module.device,
        )
