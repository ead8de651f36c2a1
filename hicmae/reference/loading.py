"""Models from the reference's weights and back: every name and shape fits, or an error lists what does not."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from hicmae.backbone import MODALITIES, Backbone
from hicmae.config import ModelConfig
from hicmae.heads import Targets, categorical, dimensional
from hicmae.pretraining import HiCMAE
from hicmae.recognition import EmotionRecognizer
from hicmae.reference.architecture import (
    check_table,
    infer_config,
    infer_objective,
    position_tables,
    refuse_other_models,
)
from hicmae.reference.files import ReferenceFile, read_file
from hicmae.reference.names import is_decoder_name, our_name, our_value, reference_name, reference_value
from hicmae.reference.report import Fate, NameRow, raise_faults

Model = HiCMAE | EmotionRecognizer | Backbone
# The mix of layers is not part of pre-training.
_MIX = frozenset({"backbone.video_layer_weights", "backbone.audio_layer_weights"})


_KINDS: dict[type, str] = {HiCMAE: "model", EmotionRecognizer: "recogniser", Backbone: "backbone"}


def refuse_variants(config: ModelConfig | None, what: str | Path) -> None:
    """Raise ``ValueError`` for an architecture in which parts of the paper are switched off."""
    if config is not None and config.switched:
        named = ", ".join(f"{name}={value}" for name, value in config.switched.items())
        raise ValueError(
            f"{what}: files of the reference hold the paper's model alone, and {named} is another; leave it at the "
            "paper's setting"
        )


def load_pretraining(path: str | Path, config: ModelConfig | None = None) -> HiCMAE:
    """A ``HiCMAE`` with the weights of a reference pre-training checkpoint.

    Args:
        path: ``.pth`` (also with an ``argparse.Namespace``) or ``.safetensors``.
        config: the architecture; ``None`` infers it from what is in the file.

    Raises:
        ValueError: listing every missing, unknown or misshapen name.
    """
    refuse_variants(config, path)
    file = read_file(path)
    model = HiCMAE(config or infer_config(file.state, file.settings), objective=infer_objective(file.settings))
    fill(model, file)
    return model


def load_recognizer(
    path: str | Path, config: ModelConfig | None = None, *, targets: Targets | None = None
) -> EmotionRecognizer:
    """An ``EmotionRecognizer`` with the weights of a reference fine-tuning checkpoint.

    Args:
        path: ``.pth`` or ``.safetensors``.
        config: the architecture; ``None`` infers it from what is in the file.
        targets: names of the classes, or of the dimensions of a regression; ``None``: classes '0', '1', ...

    Raises:
        ValueError: listing every missing, unknown or misshapen name; or the head ends in a function that ours has not.
    """
    refuse_variants(config, path)
    file = read_file(path)
    if "head.weight" not in file.state:
        raise ValueError(f"{path} has no 'head.weight': not a fine-tuned model; use load_pretraining")
    refuse_other_models(file.settings, file.path)
    model = EmotionRecognizer(
        Backbone(config or infer_config(file.state, file.settings)), targets or default_targets(file)
    )
    fill(model, file)
    return model


def load_backbone(path: str | Path, config: ModelConfig | None = None) -> Backbone:
    """The ``Backbone`` in a reference checkpoint of any kind; decoders and heads must be whole, and are left out.

    Args, raises: as ``load_pretraining``.
    """
    refuse_variants(config, path)
    file = read_file(path)
    config = config or infer_config(file.state, file.settings)
    model: Model = (backbone := Backbone(config))
    if "head.weight" in file.state:
        model = EmotionRecognizer(backbone, default_targets(file))
    elif any(map(is_decoder_name, file.state)):
        model = HiCMAE(config)
    fill(model, file)
    return model if isinstance(model, Backbone) else model.backbone


def default_targets(file: ReferenceFile) -> Targets:
    """Classes named '0', '1', ..., as many as the head has outputs, for files name none; one output is a dimension."""
    outputs = file.state["head.weight"].shape[0]
    return categorical(outputs) if outputs > 1 else dimensional(["0"])


def to_reference(model: Model) -> dict[str, Tensor]:
    """The model's weights under the reference's names and shapes; the inverse of loading.

    Raises:
        ValueError: a model that the reference's files cannot hold (of one modality, with two heads, or with parts of
            the paper switched off).
    """
    return {row.theirs: value for row, value in to_reference_rows(model) if value is not None}


def to_reference_rows(model: Model) -> list[tuple[NameRow, Tensor | None]]:
    """Every name of the model with its value under the reference's name; ``None`` where it is dropped."""
    refuse_variants(_config_of(model), "this model")
    if tuple(model.modalities) != MODALITIES:
        raise ValueError(
            f"this {_KINDS[type(model)]} was trained with "
            f"{model.modalities[0]} alone; the reference's audio-visual model has no counterpart"
        )
    if isinstance(model, EmotionRecognizer) and model.targets.classes and model.targets.dimensions:
        raise ValueError(
            "this recogniser has classes and dimensions, and the reference's head has only one of them; fine-tune for "
            "one, or convert its backbone (hicmae export FOLDER BACKBONE --backbone-only)"
        )
    config = _config_of(model)
    rows: list[tuple[NameRow, Tensor | None]] = []
    for name, value in model.state_dict().items():
        ours = _with_prefix(name, model)
        shape = tuple(value.shape)
        if ours in _MIX and (isinstance(model, HiCMAE) or (isinstance(model, Backbone) and _uniform(value))):
            note = "not in files of pre-training: every layer weighs the same"
            rows.append((NameRow(theirs="", ours=name, shape=shape, fate="dropped", note=note), None))
            continue
        theirs = reference_value(ours, value, config)
        row = NameRow(
            theirs=reference_name(ours), ours=name, shape=shape, fate="converted", note=_reshaped(value, theirs)
        )
        rows.append((row, theirs))
    return rows


# ---------------------------------------------------------------- strict loading


def fill(model: Model, file: ReferenceFile) -> list[NameRow]:
    """Load a file's weights into ``model``; returns what became of every name.

    Raises:
        ValueError: listing every missing, unknown or misshapen name; the model is unchanged then.
    """
    rows, fitting = match(model, file)
    raise_faults(rows, f"{file.path} does not fit this {type(model).__name__}")
    check_values(file, _config_of(model))
    model.load_state_dict(model.state_dict() | fitting)
    return rows


def match(model: Model, file: ReferenceFile) -> tuple[list[NameRow], dict[str, Tensor]]:
    """What becomes of every name of a file in ``model``, and the values that fit it, by the model's names."""
    own = model.state_dict()
    rows: list[NameRow] = []
    fitting: dict[str, Tensor] = {}
    seen: set[str] = set()
    dimensional = isinstance(model, EmotionRecognizer) and not model.targets.classes
    tables = position_tables(file.state)
    for theirs, value in file.state.items():
        original, shape = file.original_names[theirs], tuple(value.shape)
        ours = our_name(theirs, dimensional=dimensional)
        name = None if ours is None else _without_prefix(ours, model)
        if theirs in tables:
            row = NameRow(theirs=original, ours="", shape=shape, fate="dropped", note="fixed sinusoid table, made anew")
        elif name in own:
            seen.add(name)
            changed = our_value(name, value)
            if changed.shape != own[name].shape or not changed.is_floating_point():
                kind = "" if changed.is_floating_point() else f" of {changed.dtype}"
                note = f"has {tuple(changed.shape)}{kind}, expected {tuple(own[name].shape)}"
                row = NameRow(theirs=original, ours=name, shape=shape, fate="misshapen", note=note)
            else:
                fitting[name] = changed
                note = "; ".join(filter(None, (_reshaped(value, changed), _recast(value, own[name]))))
                row = NameRow(theirs=original, ours=name, shape=shape, fate="converted", note=note)
        elif isinstance(model, Backbone) and (is_decoder_name(theirs) or theirs.startswith(("head.", "fc_norm."))):
            part = "decoder" if is_decoder_name(theirs) else "head"
            row = NameRow(theirs=original, ours="", shape=shape, fate="dropped", note=f"{part}: not in a backbone")
        else:
            row = NameRow(theirs=original, ours="", shape=shape, fate="unknown")
        rows.append(row)
    for name, value in own.items():
        if name in seen:
            continue
        ours = _with_prefix(name, model)
        optional = ours in _MIX and not isinstance(model, EmotionRecognizer)
        note = "not in files of pre-training: every layer weighs the same" if optional else "not in the file"
        fate: Fate = "dropped" if optional else "missing"
        theirs = "" if optional else reference_name(ours)
        rows.append(NameRow(theirs=theirs, ours=name, shape=tuple(value.shape), fate=fate, note=note))
    rows += [NameRow(theirs=n, ours="", shape=None, fate="dropped", note=what) for n, what in file.left_out.items()]
    return rows, fitting


def check_values(file: ReferenceFile, config: ModelConfig) -> None:
    """Raise ``ValueError`` for position tables other than the model's, and for values that are no finite numbers."""
    for name, table in position_tables(file.state).items():
        check_table(name, table, config)
    broken = [n for n, value in file.state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        raise ValueError(f"{file.path} holds values that are no finite numbers, in {', '.join(broken)}")


def _config_of(model: Model) -> ModelConfig:
    return model.config if isinstance(model, HiCMAE | Backbone) else model.backbone.config


def _with_prefix(name: str, model: nn.Module) -> str:
    return f"backbone.{name}" if isinstance(model, Backbone) else name


def _without_prefix(ours: str, model: nn.Module) -> str | None:
    if not isinstance(model, Backbone):
        return ours
    return ours.removeprefix("backbone.") if ours.startswith("backbone.") else None


def _uniform(values: Tensor) -> bool:
    return bool((values == values[0]).all())


def _reshaped(before: Tensor, after: Tensor) -> str:
    return "" if before.shape == after.shape else f"values reordered to {'x'.join(map(str, after.shape))}"


def _recast(value: Tensor, own: Tensor) -> str:
    if value.dtype == own.dtype:
        return ""
    return f"{str(value.dtype).removeprefix('torch.')} to {str(own.dtype).removeprefix('torch.')}"
