"""What a reference checkpoint was made with, from the shapes, position tables and settings in the file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from hicmae.config import PRESETS, InputSpec, ModelConfig
from hicmae.patches import sinusoid_positions
from hicmae.pretraining import Objective

_FRAMES_PER_SECOND = 25
"""Of the clips that the reference samples every ``sampling_rate``-th frame of."""
_NAMED_SETTINGS = {
    "input_size": "image_size",
    "num_frames": "num_frames",
    "input_size_audio": "audio_frames",
    "num_mel_bins": "mel_bins",
    "return_intermediate_features": "taps",
}
"""Settings of a run of the reference, and the fields that they are here."""
_OBJECTIVE_SETTINGS = {
    "loss_weight": "contrastive_weight",
    "inter_contrastive_temperature": "temperature",
    "use_frame_diff_as_target": "frame_difference",
}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A configuration, and where each of its fields came from."""

    config: ModelConfig
    origins: dict[str, str]
    """Field -> what told it."""


def infer_config(state: Mapping[str, Tensor], settings: Mapping[str, Any] | None = None) -> ModelConfig:
    """The architecture that a reference state dict was made with; arguments and errors as ``infer_architecture``."""
    return infer_architecture(state, settings or {}, {}).config


def infer_architecture(
    state: Mapping[str, Tensor], settings: Mapping[str, Any], given: Mapping[str, Any]
) -> Architecture:
    """The architecture that a reference state dict was made with.

    What shapes do not tell (image size, frames, spectrogram) is taken from ``given``, else from the settings in the
    file, else from position tables in it, else from the paper. Heads are width / 64; taps are the paper's.

    Args:
        state: weights by the reference's names.
        settings: plain values of the file's ``argparse.Namespace``.
        given: fields of ``ModelConfig`` that the caller knows.

    Raises:
        ValueError: if the shapes fit no published architecture; give the fields then.
    """
    named = {ours: settings[name] for name, ours in _NAMED_SETTINGS.items() if name in settings}
    try:
        layers: dict[str, Mapping[str, Any]] = {
            "the paper": ModelConfig().to_dict(),
            "shapes": _from_shapes(state),
            "settings in the file": named,
            "given": given,
        }
        if "encoder_to_decoder.weight" not in state:  # the published decoder of this width
            width = layers["shapes"]["width"]
            preset = next((values for values in PRESETS.values() if values.get("width", 512) == width), {})
            layers["the paper"] = {**layers["the paper"], **preset}
        known = {name: value for layer in layers.values() for name, value in layer.items()}
        layers["position tables"] = _from_tables(state, known, told={*named, *given})
        origins = {name: origin for origin, layer in layers.items() for name in layer}
        known |= layers["position tables"]
        for name in ("heads", "decoder_heads"):
            if origins[name] == "the paper":
                known[name], origins[name] = _heads(known[name.replace("heads", "width")], name), "width / 64"
        return Architecture(config=ModelConfig.from_dict(known), origins=origins)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        missing = f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"cannot tell the architecture from the checkpoint's shapes ({missing}); pass config=ModelConfig(...), "
            "or --config field=value to hicmae convert"
        ) from error


def infer_spec(config: ModelConfig, settings: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> InputSpec:
    """What a clip is for that model: the step between frames and the sound's length from the run's settings.

    The reference takes the sound of the frames it strides over and one more (REFERENCE: 65 frames, 2.60 s).
    """
    timing: dict[str, Any] = {}
    stride = settings.get("sampling_rate")
    if isinstance(stride, int) and stride > 0:
        frames = config.num_frames * stride + 1
        timing = {"frame_interval_s": stride / _FRAMES_PER_SECOND, "audio_seconds": frames / _FRAMES_PER_SECOND}
    return InputSpec.for_model(config, **timing | dict(given or {}))


def infer_objective(settings: Mapping[str, Any]) -> Objective:
    """What the decoders of a run were trained for, as far as its settings say; the paper's else."""
    named = {ours: settings[name] for name, ours in _OBJECTIVE_SETTINGS.items() if name in settings}
    return Objective(**named)


def refuse_other_models(settings: Mapping[str, Any], path: Path) -> None:
    """Raise ``ValueError`` for settings that change what a model computes and no shape."""
    function = settings.get("head_activation_func")
    if function is not None:
        raise ValueError(
            f"the head in {path} ends in a function that recognisers here do not have (head_activation_func="
            f"{function!r} in its settings): without it, its values would be others. Its backbone can be had: "
            "--backbone-only, or load_backbone"
        )


def position_tables(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The position tables in a state dict, by name."""
    return {name: value for name, value in state.items() if name.rsplit(".", 1)[-1].startswith("pos_embed")}


def check_table(name: str, table: Tensor, config: ModelConfig) -> None:
    """Raise ``ValueError`` unless ``table`` is the sinusoid table that the model has in that place."""
    tokens = config.audio_tokens if "audio" in name else config.video_tokens
    width = config.width if name.startswith("encoder") else config.decoder_width
    found = table.squeeze(0) if table.ndim == 3 else table
    if found.shape != (tokens, width):
        raise ValueError(
            f"{name} has positions {tuple(table.shape)}, expected {tokens} tokens of width {width} "
            f"(image_size={config.image_size}, num_frames={config.num_frames}, audio_frames={config.audio_frames}, "
            f"mel_bins={config.mel_bins}); give the sizes that the model was trained with"
        )
    difference = (found.double() - sinusoid_positions(tokens, width).double()).abs().max().item()
    if not difference <= (1e-5 if found.element_size() >= 4 else 1e-2):  # NaN is no table either
        raise ValueError(
            f"{name} is not the fixed sinusoid table (differs by up to {difference:.3g}): positions were learned or "
            "interpolated, which this architecture does not have"
        )


def _from_shapes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    embed = state["encoder.patch_embed.proj.weight"]  # (D, 3, tubelet, patch, patch)
    width = embed.shape[0]
    values: dict[str, Any] = {
        "width": width,
        "depth": _count_blocks(state, "encoder.blocks."),
        "tubelet_size": embed.shape[2],
        "patch_size": embed.shape[3],
        "audio_patch_size": state["encoder_audio.patch_embed.proj.weight"].shape[2],  # (D, 1, patch, patch)
        "fusion_depth": _count_blocks(state, "encoder_fusion.blocks."),
        "mlp_ratio": state["encoder.blocks.0.mlp.fc1.weight"].shape[0] / width,
    }
    if "encoder_to_decoder.weight" in state:
        values["decoder_width"] = state["encoder_to_decoder.weight"].shape[0]
        values["decoder_depth"] = _count_blocks(state, "decoder.blocks.")
    return values


def _heads(width: int, name: str) -> int:
    if width % 64:
        raise ValueError(f"a width of {width} is no multiple of the published 64 a head: {name} must be given")
    return width // 64


def _from_tables(state: Mapping[str, Tensor], values: Mapping[str, Any], told: set[str]) -> dict[str, int]:
    """Sizes that nothing else tells, from the number of tokens in the encoders' position tables."""
    found: dict[str, int] = {}
    tables = position_tables(state)
    if (table := tables.get("encoder.pos_embed")) is not None and not {"image_size", "num_frames"} <= told:
        tokens, tubelet, patch = table.shape[-2], values["tubelet_size"], values["patch_size"]
        times = values["num_frames"] // tubelet
        side = math.isqrt(tokens // times)
        area = (values["image_size"] // patch) ** 2
        if "image_size" not in told and side * side * times == tokens:
            found["image_size"] = side * patch
        elif "num_frames" not in told and tokens % area == 0:
            found["num_frames"] = tokens // area * tubelet
        else:
            raise ValueError(f"{tokens} video positions fit more than one image_size and num_frames: give both")
    if (table := tables.get("encoder_audio.pos_embed")) is not None and "audio_frames" not in told:
        tokens, patch = table.shape[-2], values["audio_patch_size"]
        bands = values["mel_bins"] // patch
        if tokens % bands:
            raise ValueError(f"{tokens} audio positions do not fit mel_bins={values['mel_bins']}: give mel_bins")
        found["audio_frames"] = tokens // bands * patch
    return found


def _count_blocks(state: Iterable[str], prefix: str) -> int:
    numbers = [int(name[len(prefix) :].split(".")[0]) for name in state if name.startswith(prefix)]
    return max(numbers) + 1 if numbers else 0
