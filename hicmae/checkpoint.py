"""Models from wherever they are: exported folders, checkpoints of a training, the authors' files.

What others load is an exported folder; its functions (``hicmae.exported``) are found here too. Nothing that is read
here is ever unpickled into code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from hicmae.backbone import MODALITIES, Backbone, Modality
from hicmae.config import InputSpec, ModelConfig
from hicmae.export_config import WEIGHTS, Export, Kind
from hicmae.exported import (
    load_backbone,
    load_pretraining,
    load_recognizer,
    load_weights,
    part_of,
    read_export,
    save_export,
)
from hicmae.heads import Targets
from hicmae.pretraining import HiCMAE, Objective
from hicmae.recognition import EmotionRecognizer
from hicmae.weights_file import read_weights

__all__ = [
    "CHECKPOINT_PROTOCOL",
    "CHECKPOINT_PROVENANCE",
    "BackboneWeights",
    "Export",
    "Kind",
    "check_same_architecture",
    "load_backbone",
    "load_pretraining",
    "load_recognizer",
    "read_backbone",
    "read_export",
    "read_pretraining",
    "read_provenance",
    "read_recognizer",
    "save_export",
]


CHECKPOINT_PROVENANCE = "hicmae_provenance"
"""Under what name a training checkpoint says how it came about."""
CHECKPOINT_PROTOCOL = "FinetuneData"
"""Under what name a checkpoint of fine-tuning says which fold was held out; Lightning takes that of the data module."""


@dataclass(frozen=True, kw_only=True)
class BackboneWeights:
    """A backbone to start from, wherever it came from."""

    config: ModelConfig
    spec: InputSpec
    state: dict[str, Tensor]
    """Names as in ``Backbone``."""
    modalities: tuple[Modality, ...] = MODALITIES
    """What it was trained with."""


def read_backbone(path: str | Path, config: ModelConfig | None = None) -> BackboneWeights:
    """Backbone weights from an exported folder, a training checkpoint (``.ckpt``) or a reference checkpoint.

    Args:
        path: folder, ``.ckpt``, or the authors' ``.pth`` / ``.safetensors``.
        config: the architecture of a reference checkpoint where shapes do not tell it.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not one of these, or of another architecture than ``config`` (the differing fields are named; no
            weight depends on ``feature_fusion``, which may differ).
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}; give an exported folder, a .ckpt or a reference file")
    if path.is_dir():
        export = read_export(path)
        weights = BackboneWeights(
            config=export.config,
            spec=export.spec,
            state=part_of(read_weights(path / WEIGHTS), "backbone."),
            modalities=export.modalities,
        )
    elif path.suffix == ".ckpt":
        about, state = _read_training_checkpoint(path)
        weights = BackboneWeights(
            config=ModelConfig.from_dict(about["model"]),
            spec=InputSpec.from_dict(about["input"]),
            state=part_of(state, "model.backbone."),
            modalities=tuple(about.get("modalities", MODALITIES)),
        )
    else:
        weights = _read_reference(path, config)
    if config is not None:
        check_same_architecture(weights.config, replace(config, feature_fusion=weights.config.feature_fusion), path)
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
            Targets(**about["targets"], ranges=about.get("labels", {}).get("dimensions", {})),
            modalities=tuple(about["modalities"]),
        )
        load_weights(model, part_of(state, "model."), path)
        return model.eval()
    reference, state = _reference_state(path)
    return reference.load_recognizer(path, config).eval() if "head.weight" in state else None


def read_pretraining(path: str | Path, config: ModelConfig | None = None) -> HiCMAE | None:
    """The pre-training model at ``path``, decoder included; ``None`` where there is none.

    Args:
        path, config: as for ``read_backbone``.
    """
    path = Path(path)
    if path.is_dir():
        return load_pretraining(path)[0] if read_export(path).objective is not None else None
    if path.suffix == ".ckpt":
        about, state = _read_training_checkpoint(path)
        if about["job"] != "pretrain":
            return None
        # Checkpoints did not say it at first; all settings of the loss but the paper's were the exception.
        objective = Objective(**about.get("objective", {}))
        spec = InputSpec.from_dict(about["input"])
        config, modalities = ModelConfig.from_dict(about["model"]), tuple(about.get("modalities", MODALITIES))
        model = HiCMAE(config, objective=objective, spec=spec, modalities=modalities)
        load_weights(model, part_of(state, "model."), path)
        return model.eval()
    reference, state = _reference_state(path)
    return reference.load_pretraining(path, config).eval() if "head.weight" not in state else None


def read_provenance(path: str | Path, *, backbone_only: bool = False) -> dict[str, Any]:
    """What the file or folder at ``path`` knows of how its model came about, for an export that is made from it.

    ``backbone_only``: the export will have no head; the scores of a whole recogniser are not its own.
    """
    path = Path(path)
    if path.is_dir():
        export = read_export(path)
        return export.derived() if backbone_only and export.targets is not None else export.provenance
    known: dict[str, Any] = {"exported_from": path.name}
    if path.suffix == ".ckpt":
        about, _ = _read_training_checkpoint(path)
        known |= {"job": about["job"], **about["provenance"]}
        if about["protocol"] is not None:
            known["protocol"] = about["protocol"]
    return known


def _read_training_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a ``.ckpt`` says of itself, and its weights."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        about = {
            **checkpoint["hicmae"],
            "provenance": checkpoint.get(CHECKPOINT_PROVENANCE, {}),
            "protocol": checkpoint.get(CHECKPOINT_PROTOCOL),
        }
        return about, checkpoint["state_dict"]
    except FileNotFoundError:
        raise FileNotFoundError(f"no checkpoint at {path}") from None
    except Exception as error:  # torch names a dozen kinds of damage by as many exceptions
        raise ValueError(f"{path} is no HiCMAE training checkpoint, or is damaged ({error})") from error


def _reference_state(path: Path) -> tuple[ModuleType, dict[str, Tensor]]:
    """The module that knows the authors' names (it needs this one's models), and the weights under those names."""
    from hicmae import reference

    return reference, reference.read_state(path)


def _read_reference(path: Path, config: ModelConfig | None) -> BackboneWeights:
    from hicmae import reference

    backbone = reference.load_backbone(path, config)
    spec = reference.infer_spec(backbone.config, reference.read_file(path).settings)
    return BackboneWeights(config=backbone.config, spec=spec, state=backbone.state_dict())
