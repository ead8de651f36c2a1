"""Files that are brought here by mistake: what they look like, and what to bring instead.

The marks are names of parameters and entries as the projects' public code gives them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

_FAMILY = "HiCMAE's files have encoder.*, encoder_audio.* and encoder_fusion.*"


def recognize_entries(found: Mapping[Any, Any], path: Path) -> None:
    """Raise ``ValueError`` for a file whose topmost entries say that its weights are elsewhere."""
    entries = set(map(str, found))
    if "hicmae" in entries and "state_dict" in entries:
        raise ValueError(f"{path} is a training checkpoint of this project; give it the ending .ckpt")
    if "optimizer_state_dict" in entries and not entries & {"module", "model"}:
        _refuse(
            path,
            "a DeepSpeed ZeRO file with a rank's share of the optimiser, without names of weights",
            "join the shares with the zero_to_fp32.py that DeepSpeed left beside them, and give its result",
        )
    module = found.get("module")
    if isinstance(module, Mapping) and any(isinstance(v, Tensor) and v.numel() == 0 for v in module.values()):
        _refuse(
            path,
            "a DeepSpeed ZeRO-3 file whose weights are partitioned (some are empty here)",
            "join them with the zero_to_fp32.py that DeepSpeed left beside them, and give its result",
        )
    optimizer = {"state", "param_groups"} <= entries or (
        "optimizer" in entries and not entries & {"model", "module", "state_dict"}
    )
    if optimizer and not any(isinstance(value, Tensor) for value in found.values()):
        _refuse(path, "the state of an optimiser without a model", "give the file that holds the model")


def recognize(names: Iterable[str], path: Path) -> None:
    """Raise ``ValueError`` for the state dict of another project; nothing for one of HiCMAE or an unknown one."""
    names = set(names)

    def has(*starts: str) -> bool:
        return all(any(name.startswith(start) for name in names) for start in starts)

    if has("encoder.", "encoder_audio."):
        return
    if any(name.endswith("lg_region_tokens") for name in names):
        _refuse(path, "MAE-DFER (it has lg_region_tokens)")
    if has("video_encoder.", "audio_encoder."):
        _refuse(path, "weights under this project's own names", "give the exported folder that they lie in")
    if has("blocks_a.", "blocks_v.") or has("patch_embed_a.", "patch_embed_v."):
        _refuse(path, "CAV-MAE (it has blocks_a and blocks_v)")
    if has("videomae."):
        _refuse(path, "VideoMAE as the library transformers names it")
    if has("encoder.blocks.", "decoder.blocks.", "encoder_to_decoder."):
        _refuse(path, "pre-training of VideoMAE: picture alone, without encoder_audio")
    if has("decoder_embed.", "decoder_blocks."):
        _refuse(path, "a masked autoencoder of images or spectrograms such as MAE or AudioMAE")
    if has("patch_embed.", "blocks."):
        _refuse(path, "one plain transformer, such as a fine-tuned VideoMAE, AudioMAE or an encoder alone")


def _refuse(path: Path, looks_like: str, remedy: str = f"they are of another architecture; {_FAMILY}") -> NoReturn:
    raise ValueError(f"{path} looks like {looks_like}. It cannot be converted: {remedy}")
