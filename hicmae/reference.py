"""Checkpoints of the authors' code (``sunlicai/HiCMAE``): their names and shapes to ours and back, strictly.

Their files are pickles that also hold an ``argparse.Namespace``. They are read with torch's restricted unpickler;
every foreign object in them becomes an inert placeholder, so that no code of the file runs.
"""

from __future__ import annotations

import logging
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hicmae.backbone import Backbone
from hicmae.config import PRESETS, ModelConfig
from hicmae.heads import Targets, categorical
from hicmae.pretraining import HiCMAE
from hicmae.recognition import EmotionRecognizer

logger = logging.getLogger(__name__)

# Beginnings of parameter names, theirs and ours; the first that fits counts.
_BACKBONE_NAMES = [
    ("encoder.patch_embed.proj.", "backbone.video_encoder.embed."),
    ("encoder.", "backbone.video_encoder."),
    ("encoder_audio.patch_embed.proj.", "backbone.audio_encoder.embed."),
    ("encoder_audio.", "backbone.audio_encoder."),
    ("encoder_fusion.blocks.", "backbone.fusion.video_blocks."),
    ("encoder_fusion.blocks_audio.", "backbone.fusion.audio_blocks."),
    ("encoder_fusion.norm.", "backbone.fusion.video_norm."),
    ("encoder_fusion.norm_audio.", "backbone.fusion.audio_norm."),
    ("video_layer_weights", "backbone.video_layer_weights"),
    ("audio_layer_weights", "backbone.audio_layer_weights"),
]
_PRETRAINING_NAMES = [
    ("mask_token_audio", "audio_decoder.mask_token"),
    ("mask_token", "video_decoder.mask_token"),
    ("encoder_to_decoder_audio.", "audio_decoder.from_encoder."),
    ("encoder_to_decoder.", "video_decoder.from_encoder."),
    ("decoder.blocks.0.", "video_decoder.first_block."),
    ("decoder_audio.blocks.0.", "audio_decoder.first_block."),
    ("decoder.blocks.", "video_decoder.skip_blocks."),
    ("decoder_audio.blocks.", "audio_decoder.skip_blocks."),
    ("decoder.", "video_decoder."),
    ("decoder_audio.", "audio_decoder."),
]
_RECOGNITION_NAMES = [("fc_norm.", "head.norm."), ("head.", "head.classifier.")]
_PARTS = [(".cross_norm1.", ".cross_norm."), (".cross_norm2.", ".context_norm.")]
_ALL_NAMES = [*_PRETRAINING_NAMES, *_BACKBONE_NAMES, *_RECOGNITION_NAMES]
_SKIP_BLOCK = re.compile(r"(_decoder\.skip_blocks\.|^decoder(?:_audio)?\.blocks\.)(\d+)\.")


def _shift_skip_block(name: str, by: int) -> str:
    """Their decoder counts its first, plain block as number 0; ours names it apart."""
    return _SKIP_BLOCK.sub(lambda found: f"{found[1]}{int(found[2]) + by}.", name, count=1)


def our_name(theirs: str) -> str | None:
    """Our name of a parameter of the reference; ``None`` if there is none."""
    for their_start, our_start in _ALL_NAMES:
        if theirs.startswith(their_start):
            ours = our_start + theirs[len(their_start) :]
            for their_part, our_part in _PARTS:
                ours = ours.replace(their_part, our_part)
            return _shift_skip_block(ours, -1) if ".skip_blocks." in ours else ours
    return None


def reference_name(ours: str) -> str:
    """The reference's name of one of our parameters."""
    for their_start, our_start in _ALL_NAMES:
        if ours.startswith(our_start):
            theirs = their_start + ours[len(our_start) :]
            for their_part, our_part in _PARTS:
                theirs = theirs.replace(our_part, their_part)
            return _shift_skip_block(theirs, 1) if ".skip_blocks." in ours else theirs
    raise ValueError(f"parameter {ours!r} has no counterpart in the reference")


def _our_value(name: str, value: Tensor) -> Tensor:
    """Their patch embeddings are convolutions (D, C, ...); ours are linear over (frame, row, column, channel)."""
    return value.movedim(1, -1).flatten(1) if name.endswith(".embed.weight") else value


def _reference_value(name: str, value: Tensor, config: ModelConfig) -> Tensor:
    if name == "backbone.video_encoder.embed.weight":
        patch = (config.tubelet_size, config.patch_size, config.patch_size, 3)
        return value.unflatten(1, patch).movedim(-1, 1).contiguous()
    if name == "backbone.audio_encoder.embed.weight":
        return value.unflatten(1, (1, config.audio_patch_size, config.audio_patch_size)).contiguous()
    return value


# ---------------------------------------------------------------- reading files


class _Placeholder:
    """Stands for an object of the pickle that is not a tensor; keeps nothing and runs nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Placeholder:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


def _load_pickle(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is no torch checkpoint (no zip archive: cut short, or written by torch before 1.6); "
            "copy it again or save it with a newer torch"
        )
    foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    if foreign:
        logger.info("%s: replaced by placeholders, not loaded: %s", path.name, ", ".join(foreign))
    try:
        with torch.serialization.safe_globals([(_Placeholder, name) for name in foreign]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} would have to run code to be read, or is damaged ({', '.join(foreign) or 'no foreign objects'}); "
            "it was not read. Save its state dict alone as .safetensors where you trust it"
        ) from error


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a reference checkpoint (``.pth`` or ``.safetensors``), without wrappers around its names.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint, or one without a state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    found: Any = load_file(path) if path.suffix == ".safetensors" else _load_pickle(path)
    for key in ("model", "module", "state_dict"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not any(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path} holds no state dict: expected tensors by name, at the top or under 'model'")
    state = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    for prefix in ("module.", "model."):
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


# ---------------------------------------------------------------- architecture from shapes


def _count_blocks(state: Iterable[str], prefix: str) -> int:
    numbers = [int(name[len(prefix) :].split(".")[0]) for name in state if name.startswith(prefix)]
    return max(numbers) + 1 if numbers else 0


def infer_config(state: Mapping[str, Tensor]) -> ModelConfig:
    """The architecture that a reference state dict was made with.

    Heads are width / 64. What shapes do not tell (image size, frames, spectrogram size, taps) is the paper's.

    Raises:
        ValueError: if the shapes fit no published architecture; pass ``config`` then.
    """
    try:
        embed = state["encoder.patch_embed.proj.weight"]  # (D, 3, tubelet, patch, patch)
        audio_embed = state["encoder_audio.patch_embed.proj.weight"]  # (D, 1, patch, patch)
        width, depth = embed.shape[0], _count_blocks(state, "encoder.blocks.")
        values: dict[str, Any] = {
            "width": width,
            "heads": max(1, width // 64),
            "depth": depth,
            "tubelet_size": embed.shape[2],
            "patch_size": embed.shape[3],
            "audio_patch_size": audio_embed.shape[2],
            "fusion_depth": _count_blocks(state, "encoder_fusion.blocks."),
            "mlp_ratio": state["encoder.blocks.0.mlp.fc1.weight"].shape[0] / width,
        }
        if "encoder_to_decoder.weight" in state:
            decoder_width = state["encoder_to_decoder.weight"].shape[0]
            values |= {
                "decoder_width": decoder_width,
                "decoder_heads": max(1, decoder_width // 64),
                "decoder_depth": _count_blocks(state, "decoder.blocks."),
            }
        else:  # a fine-tuned model has no decoder: take the published one of this width
            values |= next((v for v in PRESETS.values() if v.get("width", 512) == width), {}) | values
        return ModelConfig(**values)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"cannot tell the architecture from the checkpoint's shapes ({error}); pass config=ModelConfig(...)"
        ) from error


# ---------------------------------------------------------------- loading and saving


def _load(model: nn.Module, state: Mapping[str, Tensor], path: str | Path, *, optional: frozenset[str]) -> None:
    """Load a reference state strictly: every name and every shape, or an error that lists all that do not fit."""
    own = model.state_dict()
    renamed: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, value in state.items():
        ours = our_name(name)
        if ours is None or ours not in own:
            unknown.append(name)
        else:
            renamed[ours] = _our_value(ours, value)
    problems = []
    missing = sorted(reference_name(name) for name in own if name not in renamed and name not in optional)
    if missing:
        problems.append(f"missing: {', '.join(missing)}")
    if unknown:
        problems.append(f"unknown: {', '.join(sorted(unknown))}")
    shapes = [
        f"{reference_name(name)} has {tuple(value.shape)}, expected {tuple(own[name].shape)}"
        for name, value in renamed.items()
        if value.shape != own[name].shape
    ]
    if shapes:
        problems.append(f"shapes (as ours): {'; '.join(shapes)}")
    if problems:
        raise ValueError(f"{path} does not fit this {type(model).__name__}. " + ". ".join(problems))
    model.load_state_dict(own | renamed)


def load_pretraining(path: str | Path, config: ModelConfig | None = None) -> HiCMAE:
    """A ``HiCMAE`` with the weights of a reference pre-training checkpoint.

    Args:
        path: ``.pth`` (also with an ``argparse.Namespace``) or ``.safetensors``.
        config: the architecture; ``None`` infers it from shapes.

    Raises:
        ValueError: listing every missing, unknown or misshapen name.
    """
    state = read_state(path)
    model = HiCMAE(config or infer_config(state))
    # The mix of layers is not part of pre-training.
    mix = frozenset({"backbone.video_layer_weights", "backbone.audio_layer_weights"})
    _load(model, state, path, optional=mix)
    return model


def load_recognizer(
    path: str | Path, config: ModelConfig | None = None, *, targets: Targets | None = None
) -> EmotionRecognizer:
    """An ``EmotionRecognizer`` with the weights of a reference fine-tuning checkpoint.

    Args:
        path: ``.pth`` or ``.safetensors``.
        config: the architecture; ``None`` infers it from shapes.
        targets: names of the classes; ``None`` names them '0', '1', ...

    Raises:
        ValueError: listing every missing, unknown or misshapen name.
    """
    state = read_state(path)
    if "head.weight" not in state:
        raise ValueError(f"{path} has no 'head.weight': not a fine-tuned model; use load_pretraining")
    targets = targets or categorical(state["head.weight"].shape[0])
    model = EmotionRecognizer(Backbone(config or infer_config(state)), targets)
    _load(model, state, path, optional=frozenset())
    return model


def to_reference(model: HiCMAE | EmotionRecognizer) -> dict[str, Tensor]:
    """The model's weights under the reference's names and shapes; the inverse of loading."""
    config = model.config if isinstance(model, HiCMAE) else model.backbone.config
    return {
        reference_name(name): _reference_value(name, value, config)
        for name, value in model.state_dict().items()
        if not (isinstance(model, HiCMAE) and name.endswith("_layer_weights"))
    }
