"""Exported folders (for users of a model) and the weights in training checkpoints (for the next training).

An exported folder holds ``model.safetensors``, ``config.json`` and ``README.md``. Nothing in it, and nothing that is
read here, is ever unpickled into code.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hicmae import __version__
from hicmae.backbone import MODALITIES, Backbone, Modality
from hicmae.config import InputSpec, ModelConfig
from hicmae.heads import Targets
from hicmae.model_card import model_card
from hicmae.recognition import EmotionRecognizer

if TYPE_CHECKING:
    from hicmae.transform import ClipTransform

SCHEMA = 1
Kind = Literal["backbone", "recognizer"]


@dataclass(frozen=True, kw_only=True)
class Export:
    """What ``config.json`` of an exported folder says."""

    kind: Kind
    config: ModelConfig
    spec: InputSpec
    modalities: tuple[Modality, ...] = MODALITIES
    """Modalities that the model was trained with."""
    targets: Targets | None = None
    """What a recogniser predicts; ``None`` for a backbone."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """How the model came about: job, data, steps, metrics. Plain JSON values."""


def save_export(
    directory: str | Path,
    model: Backbone | EmotionRecognizer,
    *,
    spec: InputSpec,
    provenance: Mapping[str, Any],
    modalities: tuple[Modality, ...] = MODALITIES,
) -> Path:
    """Write an exported folder; an older export of that name is replaced only when the new one is complete.

    Args:
        directory: the folder to write.
        model: a backbone, or a recogniser with its head.
        spec: the input that the model was trained on.
        provenance: JSON values that say how the model came about.
        modalities: of a backbone; a recogniser knows its own.

    Raises:
        ValueError: if ``directory`` exists and is no export.
    """
    directory = Path(directory)
    if directory.exists() and any(directory.iterdir()) and not (directory / "config.json").is_file():
        raise ValueError(f"{directory} exists and is no exported folder; choose another or remove it")
    recognizer = model if isinstance(model, EmotionRecognizer) else None
    export = Export(
        kind="recognizer" if recognizer else "backbone",
        config=(model.backbone if isinstance(model, EmotionRecognizer) else model).config,
        spec=spec,
        modalities=recognizer.modalities if recognizer else modalities,
        targets=recognizer.targets if recognizer else None,
        provenance=dict(provenance),
    )
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as name:
        draft = Path(name) / "export"
        draft.mkdir()
        weights = draft / "model.safetensors"
        save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, weights)
        settings = {
            "schema": SCHEMA,
            "hicmae": __version__,
            "kind": export.kind,
            "model": export.config.to_dict(),
            "input": export.spec.to_dict(),
            "modalities": list(export.modalities),
            "classes": list(export.targets.classes) if export.targets else [],
            "dimensions": list(export.targets.dimensions) if export.targets else [],
            "parameters": sum(p.numel() for p in model.parameters()),
            "sha256": {weights.name: _sha256(weights)},
            "provenance": export.provenance,
        }
        (draft / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
        (draft / "README.md").write_text(model_card(settings))
        old = Path(name) / "old"
        if directory.exists():
            directory.rename(old)
        draft.rename(directory)
        shutil.rmtree(old, ignore_errors=True)
    return directory


def read_export(directory: str | Path) -> Export:
    """Read and check ``config.json`` of an exported folder.

    Raises:
        FileNotFoundError: no such folder, or a file of it is missing.
        ValueError: not an export, a newer schema, or weights that were altered.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"no exported folder at {directory}")
    for name in ("config.json", "model.safetensors"):
        if not (directory / name).is_file():
            raise FileNotFoundError(f"{directory} has no {name}: not an exported folder, or copied incompletely")
    try:
        settings = json.loads((directory / "config.json").read_text())
        schema = settings["schema"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{directory / 'config.json'} is no export configuration ({error})") from error
    if schema > SCHEMA:
        raise ValueError(
            f"{directory} has export schema {schema}, this hicmae {__version__} reads up to {SCHEMA}; update hicmae"
        )
    expected, actual = settings["sha256"]["model.safetensors"], _sha256(directory / "model.safetensors")
    if expected != actual:
        raise ValueError(
            f"{directory / 'model.safetensors'} was altered or cut short: its sha256 is {actual[:12]}..., "
            f"config.json says {expected[:12]}...; copy the folder again"
        )
    classes, dimensions = tuple(settings["classes"]), tuple(settings["dimensions"])
    return Export(
        kind=settings["kind"],
        config=ModelConfig.from_dict(settings["model"]),
        spec=InputSpec.from_dict(settings["input"]),
        modalities=tuple(settings["modalities"]),
        targets=Targets(classes=classes, dimensions=dimensions) if classes or dimensions else None,
        provenance=settings["provenance"],
    )


def load_backbone(directory: str | Path) -> tuple[Backbone, ClipTransform]:
    """The backbone of an exported folder and the transform that feeds it.

    ``backbone, transform = load_backbone("exported"); features = backbone(**transform("clip.mp4"))``

    Args:
        directory: an export of pre-training or of fine-tuning (its head is left out).

    Returns:
        The backbone in evaluation mode, on the CPU, and the transform from a path or bytes to model inputs.
    """
    from hicmae.transform import ClipTransform

    export = read_export(directory)
    backbone = Backbone(export.config)
    backbone.load_state_dict(_part(load_file(Path(directory) / "model.safetensors"), "backbone."))
    return backbone.eval(), ClipTransform(export.spec)


def load_recognizer(directory: str | Path) -> tuple[EmotionRecognizer, ClipTransform]:
    """The recogniser of an exported folder and the transform that feeds it.

    Raises:
        ValueError: if the folder holds a backbone without a head.
    """
    from hicmae.transform import ClipTransform

    export = read_export(directory)
    if export.targets is None:
        raise ValueError(
            f"{directory} holds a backbone without a head; load it with load_backbone, or fine-tune it first: "
            f"python -m finetune fit --model.init {directory} ..."
        )
    model = EmotionRecognizer(Backbone(export.config), export.targets, modalities=export.modalities)
    model.load_state_dict(load_file(Path(directory) / "model.safetensors"))
    return model.eval(), ClipTransform(export.spec)


@dataclass(frozen=True, kw_only=True)
class BackboneWeights:
    """A backbone to start from, wherever it came from."""

    config: ModelConfig
    spec: InputSpec
    state: dict[str, Tensor]
    """Names as in ``Backbone``."""


def read_backbone(path: str | Path, config: ModelConfig | None = None) -> BackboneWeights:
    """Backbone weights from an exported folder, a training checkpoint (``.ckpt``) or a reference checkpoint.

    Args:
        path: folder, ``.ckpt``, or the authors' ``.pth`` / ``.safetensors``.
        config: the architecture of a reference checkpoint where shapes do not tell it.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not one of these, or of another architecture than ``config`` (the differing fields are named).
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}; give an exported folder, a .ckpt or a reference file")
    if path.is_dir():
        export = read_export(path)
        weights = BackboneWeights(
            config=export.config, spec=export.spec, state=_part(load_file(path / "model.safetensors"), "backbone.")
        )
    elif path.suffix == ".ckpt":
        about, state = _read_training_checkpoint(path)
        weights = BackboneWeights(
            config=ModelConfig.from_dict(about["model"]),
            spec=InputSpec.from_dict(about["input"]),
            state=_part(state, "model.backbone."),
        )
    else:
        weights = _read_reference(path, config)
    if config is not None:
        check_same_architecture(weights.config, config, path)
    return weights


def check_same_architecture(found: ModelConfig, expected: ModelConfig, path: str | Path) -> None:
    """Raise ``ValueError`` that names every field in which two architectures differ."""
    differences = found.differences(expected)
    if differences:
        listed = ", ".join(f"{name} is {mine}, expected {other}" for name, (mine, other) in differences.items())
        raise ValueError(f"{path} is of another architecture: {listed}; use its own settings or another checkpoint")


def read_recognizer(path: str | Path, config: ModelConfig | None = None) -> EmotionRecognizer | None:
    """The fine-tuned model at ``path``, head included; ``None`` where there is a backbone without a head.

    Args:
        path, config: as for ``read_backbone``.
    """
    path = Path(path)
    if path.is_dir():
        return load_recognizer(path)[0] if read_export(path).targets is not None else None
    if path.suffix == ".ckpt":
        about, state = _read_training_checkpoint(path)
        if "targets" not in about:
            return None
        model = EmotionRecognizer(
            Backbone(ModelConfig.from_dict(about["model"])),
            Targets(**about["targets"]),
            modalities=tuple(about["modalities"]),
        )
        model.load_state_dict(_part(state, "model."))
        return model.eval()
    reference, state = _reference_state(path)
    return reference.load_recognizer(path, config).eval() if "head.weight" in state else None


def _read_training_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a ``.ckpt`` says of itself, and its weights."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        return checkpoint["hicmae"], checkpoint["state_dict"]
    except FileNotFoundError:
        raise FileNotFoundError(f"no checkpoint at {path}") from None
    except Exception as error:  # torch names a dozen kinds of damage by as many exceptions
        raise ValueError(f"{path} is no HiCMAE training checkpoint, or is damaged ({error})") from error


def _reference_state(path: Path) -> tuple[ModuleType, dict[str, Tensor]]:
    """The module that knows the authors' names (it needs this one's models), and the weights under those names."""
    from hicmae import reference

    try:
        return reference, reference.read_state(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or is damaged ({error})") from error


def _read_reference(path: Path, config: ModelConfig | None) -> BackboneWeights:
    reference, state = _reference_state(path)
    load = reference.load_recognizer if "head.weight" in state else reference.load_pretraining
    backbone = load(path, config).backbone
    return BackboneWeights(
        config=backbone.config, spec=InputSpec.for_model(backbone.config), state=backbone.state_dict()
    )


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries below ``prefix``, without it; everything where nothing has it."""
    part = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return part or dict(state)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
