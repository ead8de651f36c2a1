"""Conversion of whole files: a reference checkpoint to an exported folder, and an export or checkpoint of ours back."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from hicmae.backbone import Backbone
from hicmae.checkpoint import (
    load_backbone,
    load_recognizer,
    read_export,
    read_pretraining,
    read_recognizer,
    save_export,
)
from hicmae.config import InputSpec, ModelConfig
from hicmae.file_digest import sha256_of
from hicmae.heads import Targets, categorical, dimensional
from hicmae.pretraining import HiCMAE
from hicmae.recognition import EmotionRecognizer
from hicmae.reference.architecture import infer_architecture, infer_objective, infer_spec, refuse_other_models
from hicmae.reference.files import ReferenceFile, read_file
from hicmae.reference.loading import Model, check_values, default_targets, match, to_reference_rows
from hicmae.reference.names import is_decoder_name
from hicmae.reference.report import FAULTS, NameRow, raise_faults
from hicmae.weights_file import write_weights


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a caller knows of a reference checkpoint, and what should come of it."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ``ModelConfig`` and ``InputSpec`` that the file does not tell."""
    classes: tuple[str, ...] = ()
    """Names of the head's classes, in order."""
    dimensions: tuple[str, ...] = ()
    """Names of a regression head's values, in order."""
    backbone_only: bool = False
    """Leave out the head."""
    with_decoder: bool = False
    """Keep the decoders of pre-training."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What a conversion read, before anything is written."""

    rows: list[NameRow]
    """Every name; ``raise_faults`` on them before writing."""
    notes: list[str]
    """What was not in the file and where it came from instead, one line each."""
    what: str
    """In words, for messages."""
    model: Model
    spec: InputSpec | None = None
    provenance: dict[str, Any] = field(default_factory=dict)


def is_ours(path: str | Path) -> bool:
    """Whether a path names an exported folder or a training checkpoint of ours, by its kind."""
    return Path(path).is_dir() or Path(path).suffix == ".ckpt"


# ---------------------------------------------------------------- theirs to ours


def read_theirs(path: str | Path, wanted: Wanted) -> Conversion:
    """Read a reference checkpoint into a model of ours.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no reference checkpoint, an architecture that cannot be told, or a wish that does not fit it.
            Names that do not fit are in ``rows`` and not yet an error.
    """
    file = read_file(path)
    known = {f.name for f in fields(ModelConfig)}
    architecture = infer_architecture(file.state, file.settings, {k: v for k, v in wanted.config.items() if k in known})
    config = architecture.config
    spec = infer_spec(config, file.settings, {k: v for k, v in wanted.config.items() if k not in known})
    model = _model_of(file, config, wanted)
    rows, fitting = match(model, file)
    if not any(row.fate in FAULTS for row in rows):
        check_values(file, config)
        model.load_state_dict(model.state_dict() | fitting)
    if isinstance(model, HiCMAE) and not wanted.with_decoder:
        rows = [_without_decoder(row, file) for row in rows]
    return Conversion(
        rows=rows,
        notes=_notes(architecture.origins, config, spec, file, model, wanted),
        what=f"{path} does not fit this {type(model).__name__}",
        model=model,
        spec=spec,
        provenance=_provenance(file),
    )


def _model_of(file: ReferenceFile, config: ModelConfig, wanted: Wanted) -> Model:
    has_head = "head.weight" in file.state
    has_decoder = any(map(is_decoder_name, file.state))
    if wanted.with_decoder and not has_decoder:
        raise ValueError(f"{file.path} has no decoder; leave --with-decoder out")
    if (wanted.classes or wanted.dimensions) and (wanted.backbone_only or not has_head):
        raise ValueError(f"there is no head to name the outputs of in {file.path}: leave --classes, --dimensions out")
    if has_head and not wanted.backbone_only:
        refuse_other_models(file.settings, file.path)
        return EmotionRecognizer(Backbone(config), _targets(file, wanted))
    return HiCMAE(config, objective=infer_objective(file.settings)) if has_decoder else Backbone(config)


def _targets(file: ReferenceFile, wanted: Wanted) -> Targets:
    if wanted.classes and wanted.dimensions:
        raise ValueError("a head of the reference has classes or dimensions: give one of --classes, --dimensions")
    outputs, names = file.state["head.weight"].shape[0], wanted.classes or wanted.dimensions
    if names and len(names) != outputs:
        raise ValueError(f"the head of {file.path} has {outputs} outputs, but {len(names)} names: {', '.join(names)}")
    if not names:
        return default_targets(file)
    return dimensional(names) if wanted.dimensions else categorical(names)


def _without_decoder(row: NameRow, file: ReferenceFile) -> NameRow:
    if row.fate == "converted" and row.ours.startswith(("video_decoder.", "audio_decoder.")):
        return replace(row, ours="", fate="dropped", note="decoder: kept with --with-decoder")
    return row


def _notes(
    origins: Mapping[str, str], config: ModelConfig, spec: InputSpec, file: ReferenceFile, model: Model, wanted: Wanted
) -> list[str]:
    sources: dict[str, list[str]] = {}
    for name, origin in origins.items():
        if not isinstance(model, HiCMAE) and (name.startswith("decoder_") or name == "taps"):
            continue
        sources.setdefault(origin, []).append(f"{name}={getattr(config, name)}")
    for name in ("frame_interval_s", "audio_seconds"):
        told = "settings in the file" if "sampling_rate" in file.settings else "the paper"
        sources.setdefault("given" if name in wanted.config else told, []).append(f"{name}={getattr(spec, name)}")
    assumed = sources.pop("the paper", [])
    notes = [f"from {origin}: {', '.join(values)}" for origin, values in sources.items()]
    if assumed:
        notes.append(f"not told by the file, so the paper's, unless --config says it: {', '.join(assumed)}")
    if isinstance(model, EmotionRecognizer) and not (wanted.classes or wanted.dimensions):
        notes.append("the file names no outputs: taken for classes and numbered; --classes or --dimensions names them")
    return notes


def _provenance(file: ReferenceFile) -> dict[str, Any]:
    epoch = file.left_out.get("epoch")
    said = {"epoch": int(epoch)} if epoch is not None and epoch.isdigit() else {}
    return {
        "job": "converted from the authors' checkpoint",
        "converted_from": file.path.name,
        "sha256": sha256_of(file.path),
        **said,
    }


def write_ours(found: Conversion, out: str | Path, *, with_decoder: bool) -> Path:
    """Write the exported folder of what was read.

    Raises:
        ValueError: names that do not fit, or ``out`` is a folder that is no export.
    """
    raise_faults(found.rows, found.what)
    assert found.spec is not None
    model = found.model
    if isinstance(model, HiCMAE):
        decoder = model if with_decoder else None
        return save_export(out, model.backbone, spec=found.spec, provenance=found.provenance, decoder=decoder)
    return save_export(out, model, spec=found.spec, provenance=found.provenance)


# ---------------------------------------------------------------- ours to theirs


def read_ours(path: str | Path) -> Conversion:
    """Read an exported folder or a training checkpoint of ours for ``write_theirs``.

    Raises:
        FileNotFoundError, ValueError: as ``hicmae.checkpoint`` says; or the reference has no such model.
    """
    model = _our_model(Path(path))
    rows = [row for row, _ in to_reference_rows(model)]
    notes = []
    if isinstance(model, Backbone):
        notes.append("encoders and fusion alone: neither decoders nor head are in what was read")
    return Conversion(rows=rows, notes=notes, what=str(path), model=model)


def _our_model(path: Path) -> Model:
    if path.is_dir() and read_export(path).targets is not None:
        return load_recognizer(path)[0]
    pretraining = read_pretraining(path)
    if pretraining is not None:
        return pretraining
    if path.is_dir():
        return load_backbone(path)[0]
    recognizer = read_recognizer(path)
    assert recognizer is not None, "a training checkpoint is of pre-training or of fine-tuning"
    return recognizer


def write_theirs(found: Conversion, out: str | Path) -> Path:
    """Write a file with the reference's names: ``.safetensors``, or ``.pth`` with the weights under ``model``.

    Raises:
        ValueError: another ending.
        FileExistsError: there is such a file.
    """
    out = Path(out)
    check_reference_name(out)
    state = {row.theirs: v.detach().cpu().contiguous() for row, v in to_reference_rows(found.model) if v is not None}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        draft = Path(folder) / out.name
        if out.suffix == ".safetensors":
            write_weights(state, draft)
        else:
            torch.save({"model": {name: value.clone() for name, value in state.items()}}, draft)
        draft.rename(out)
    return out


def check_reference_name(out: str | Path) -> None:
    """Raise unless a reference-named file can be written at ``out``."""
    out = Path(out)
    if out.suffix not in (".pth", ".safetensors"):
        raise ValueError(f"{out} must end in .pth or .safetensors: a file with the reference's names is written there")
    if out.exists():
        raise FileExistsError(f"{out} exists already; choose another name or remove it")


# ---------------------------------------------------------------- settings by hand


def parse_fields(words: Sequence[str]) -> dict[str, Any]:
    """``["image_size=112", "taps=1,2"]`` to fields of ``ModelConfig`` and ``InputSpec``, by their types.

    Raises:
        ValueError: an unknown field, a word without ``=``, or a value of another type.
    """
    model = ModelConfig()
    known = InputSpec().to_dict() | model.to_dict()
    for name in model.switches:  # files of the reference hold the paper's model alone
        del known[name]
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or name not in known:
            raise ValueError(f"--config {word}: give field=value; fields are {', '.join(known)}")
        try:
            if isinstance(known[name], list):
                kind = type(known[name][0])
                found[name] = tuple(kind(part) for part in text.split(","))
            else:
                found[name] = type(known[name])(text)
        except ValueError:
            raise ValueError(f"--config {word}: {text!r} is no value like {known[name]}") from None
    return found
