"""What a fine-tuning run starts from: random weights, or a backbone that is already there."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from hicmae.backbone import MODALITIES, Modality
from hicmae.checkpoint import check_same_architecture, read_backbone, read_export
from hicmae.config import InputSpec, ModelConfig
from hicmae.heads import Targets

logger = logging.getLogger(__name__)

_DEFAULT_PRESET = "base"


@dataclass(frozen=True, kw_only=True)
class Start:
    """Architecture, input and, with ``init``, weights."""

    config: ModelConfig
    spec: InputSpec
    backbone: dict[str, Tensor] | None
    """Weights by their names in ``Backbone``; ``None``: random ones."""
    modalities: tuple[Modality, ...] = MODALITIES
    """What the weights were trained with."""


_FREE_FIELDS = ("feature_fusion",)
"""Fields of ``ModelConfig`` that fine-tuning may choose anew: no weight depends on them."""


def choose_start(init: Path | None, preset: str | None, architecture: Mapping[str, Any] | None) -> Start:
    """Resolve the three settings.

    Args:
        init: exported folder, ``.ckpt`` or reference file; it brings architecture and input with it.
        preset: without ``init``, the size of the model (base, if not given); with it, a size to check it against.
        architecture: without ``init``, fields that differ from the preset; with it, fields to check, but for
            ``feature_fusion``, on which no weight depends: it is chosen anew.

    Raises:
        FileNotFoundError, ValueError: no such checkpoint, or one of another architecture (the fields are named).
    """
    fields = dict(architecture or {})
    if init is None:
        config = ModelConfig.preset(preset or _DEFAULT_PRESET, **fields)
        return Start(config=config, spec=InputSpec.for_model(config), backbone=None)
    free = {name: fields.pop(name) for name in _FREE_FIELDS if name in fields}
    weights = read_backbone(init, ModelConfig.preset(preset, **fields) if preset else None)
    if unknown := sorted(set(fields) - set(weights.config.to_dict())):
        raise ValueError(f"model.architecture has unknown fields {unknown}; known: {sorted(weights.config.to_dict())}")
    check_same_architecture(weights.config, replace(weights.config, **fields), init)
    config = replace(weights.config, **free)
    return Start(config=config, spec=weights.spec, backbone=weights.state, modalities=weights.modalities)


def check_modalities(start: Start, wanted: Sequence[str], init: Path | None) -> None:
    """Raise ``ValueError`` where a run wants a modality that its start has learnt nothing of."""
    if missing := [name for name in wanted if name not in start.modalities]:
        raise ValueError(
            f"{init} was trained with {' and '.join(start.modalities)} alone, but model.modalities is {list(wanted)}: "
            f"its {' and '.join(missing)} encoder has learnt nothing. Set model.modalities to "
            f"[{', '.join(start.modalities)}], or start from a backbone that was trained with both"
        )


def check_same_task(
    found: Targets,
    expected: Targets,
    found_modalities: tuple[str, ...],
    expected_modalities: tuple[str, ...],
    what: str | Path,
) -> None:
    """Raise ``ValueError`` that names both sides where a trained head is for another task than this run's."""
    for name in ("classes", "dimensions"):
        theirs, ours = getattr(found, name), getattr(expected, name)
        if theirs != ours:
            raise ValueError(
                f"{what} predicts the {name} {list(theirs)}, in this order, but model.labels names {list(ours)}; "
                "give the same list in the same order, or train a head for the new one"
            )
    if found_modalities != expected_modalities:
        raise ValueError(
            f"{what} was trained with {' and '.join(found_modalities)}, but model.modalities is "
            f"{list(expected_modalities)}; give the same modalities"
        )


def is_recognizer(init: Path | None) -> bool:
    """Whether ``init`` is an exported folder that holds a head too."""
    return init is not None and init.is_dir() and read_export(init).kind == "recognizer"


def describe_head(init: Path | None, expected: Targets) -> None:
    """Say that the head of an exported recogniser is not taken by a training, and what it and the new one predict."""
    if not is_recognizer(init):
        return
    assert init is not None
    found = read_export(init).targets
    assert found is not None
    theirs, ours = ([*targets.classes, *targets.dimensions] for targets in (found, expected))
    logger.info(
        "%s is a recogniser of %s: its backbone is taken, and the head for %s is made anew",
        init, theirs, "the same" if theirs == ours else ours,
    )  # fmt: skip
