"""Exported folders: what users of a model load.

A folder holds ``model.safetensors``, ``config.json`` (``hicmae.export_config``), the model card ``README.md``, and
``decoder.safetensors`` where it was asked for. Nothing in it is ever unpickled into code.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from hicmae.backbone import Backbone
from hicmae.config import InputSpec
from hicmae.export_config import DECODER, WEIGHTS, Export, export_from_settings
from hicmae.export_folder import CARD, CONFIG, replacing
from hicmae.file_digest import sha256_of
from hicmae.model_card import model_card
from hicmae.pretraining import HiCMAE
from hicmae.recognition import EmotionRecognizer
from hicmae.weights_file import read_weights, write_weights

if TYPE_CHECKING:
    from hicmae.transform import ClipTransform

logger = logging.getLogger(__name__)

FILES = (CONFIG, WEIGHTS, DECODER, CARD)
"""All that a folder may hold."""


def save_export(
    directory: str | Path,
    model: Backbone | EmotionRecognizer,
    *,
    spec: InputSpec,
    provenance: Mapping[str, Any],
    decoder: HiCMAE | None = None,
) -> Path:
    """Write an exported folder; an older export of that name is replaced only when the new one is complete, and what
    else lies in it stays.

    Args:
        directory: the folder to write.
        model: a backbone, or a recogniser with its head.
        spec: the input that the model was trained on.
        provenance: JSON values that say how the model came about.
        decoder: keep the decoders of this pre-training model too, whose backbone ``model`` is.

    Raises:
        ValueError: if ``directory`` exists and is no export, or a decoder is to go with a recogniser.
    """
    directory = Path(directory)
    recognizer = model if isinstance(model, EmotionRecognizer) else None
    if decoder is not None and decoder.backbone is not model:
        raise ValueError("a decoder can be exported with the backbone that it was trained with alone")
    export = Export(
        kind="recognizer" if recognizer else "backbone",
        config=model.config,
        spec=spec,
        modalities=model.modalities,
        targets=recognizer.targets if recognizer else None,
        objective=decoder.objective if decoder is not None else None,
        provenance=dict(provenance),
    )
    with replacing(directory) as draft:
        _save_weights(model, draft / WEIGHTS)
        if decoder is not None:
            _save_weights(decoder, draft / DECODER, without="backbone.")
        parameters = sum(parameter.numel() for parameter in model.parameters())
        export = replace(export, sha256=_digests(draft))
        (draft / CARD).write_text(model_card(export.to_settings(parameters)), encoding="utf-8")
        export = replace(export, sha256=_digests(draft))
        (draft / CONFIG).write_text(json.dumps(export.to_settings(parameters), indent=2) + "\n")
    return directory


def read_export(directory: str | Path) -> Export:
    """Read ``config.json`` of an exported folder and hold every file against it.

    A model card that was edited, and files that are not of the export (they are not read), are warned of.

    Raises:
        FileNotFoundError: no such folder, or files of it are missing (all are named).
        ValueError: not an export, a newer schema, or weights that were altered.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"no exported folder at {directory}")
    path = directory / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{directory} has no {CONFIG}: not an exported folder, or copied incompletely")
    try:
        settings = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no export configuration ({error}); copy the folder again") from error
    export = export_from_settings(settings, path)
    if missing := sorted(name for name in export.sha256 if not (directory / name).is_file()):
        raise FileNotFoundError(f"{directory} has no {', '.join(missing)}: copied incompletely; copy the folder again")
    found = {name: sha256_of(directory / name) for name in export.sha256}
    altered = sorted(name for name, digest in export.sha256.items() if found[name] != digest)
    if CARD in altered:
        logger.warning("%s was edited after the export", directory / CARD)
    if weights := [name for name in altered if name != CARD]:
        each = "; ".join(
            f"the sha256 of {name} is {found[name][:12]}..., {CONFIG} says {export.sha256[name][:12]}..."
            for name in weights
        )
        raise ValueError(
            f"{directory}: {' and '.join(weights)} was altered or cut short ({each}); copy the folder again"
        )
    known = {CONFIG, CARD, *export.sha256}
    others = sorted(file.name for file in directory.iterdir() if file.name not in known and file.name[0] != ".")
    if others:
        logger.warning("%s holds %s, which is not of the export and is not read", directory, ", ".join(others))
    return export


def load_backbone(directory: str | Path) -> tuple[Backbone, ClipTransform]:
    """The backbone of an exported folder and the transform that feeds it.

    ``backbone, transform = load_backbone("exported"); features = backbone(**transform("clip.mp4"))``

    Args:
        directory: an export of pre-training or of fine-tuning (its head is left out).

    Returns:
        The backbone in evaluation mode, on the CPU, and the transform from a path or bytes to model inputs. Both know
        the modalities that the model was trained with: the transform leaves out any other.

    Raises:
        FileNotFoundError, ValueError: as ``read_export``.
    """
    export = read_export(directory)
    backbone = Backbone(export.config, modalities=export.modalities)
    load_weights(backbone, part_of(read_weights(Path(directory) / WEIGHTS), "backbone."), directory)
    backbone.came_from(export)
    return backbone.eval(), backbone.transform


def load_recognizer(directory: str | Path) -> tuple[EmotionRecognizer, ClipTransform]:
    """The recogniser of an exported folder and the transform that feeds it.

    Raises:
        FileNotFoundError, ValueError: as ``read_export``; or the folder holds a backbone without a head.
    """
    export = read_export(directory)
    if export.targets is None:
        raise ValueError(
            f"{directory} holds a backbone without a head; load it with load_backbone, or fine-tune it first: "
            f"python -m finetune fit --model.init {directory} ..."
        )
    model = EmotionRecognizer(
        Backbone(export.config, modalities=export.modalities), export.targets, modalities=export.modalities
    )
    load_weights(model, read_weights(Path(directory) / WEIGHTS), directory)
    model.came_from(export)
    model.backbone.came_from(export)
    return model.eval(), model.transform


def load_pretraining(directory: str | Path) -> tuple[HiCMAE, ClipTransform]:
    """The whole pre-training model of a folder that was exported with its decoder, and the transform that feeds it.

    Raises:
        FileNotFoundError, ValueError: as ``read_export``; or the folder holds no decoder.
    """
    export = read_export(directory)
    if export.objective is None:
        raise ValueError(
            f"{directory} holds no decoder, which exports leave out unless asked; load it with load_backbone, or make "
            "it anew from a checkpoint: hicmae export RUN/checkpoints/last.ckpt OUT --with-decoder"
        )
    model = HiCMAE(export.config, objective=export.objective, spec=export.spec, modalities=export.modalities)
    state = {f"backbone.{name}": value for name, value in read_weights(Path(directory) / WEIGHTS).items()}
    load_weights(model, state | read_weights(Path(directory) / DECODER), directory)
    model.came_from(export)
    model.backbone.came_from(export)
    return model.eval(), model.transform


def load_weights(model: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Load a state dict strictly.

    Raises:
        ValueError: names or shapes that do not fit, all named.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit what it says of them: {error}") from error


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries below ``prefix``, without it; everything where nothing has it."""
    part = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return part or dict(state)


def _save_weights(model: nn.Module, path: Path, *, without: str | None = None) -> None:
    state = {name: v for name, v in model.state_dict().items() if without is None or not name.startswith(without)}
    write_weights(state, path)


def _digests(folder: Path) -> dict[str, str]:
    return {file.name: sha256_of(file) for file in sorted(folder.iterdir())}
