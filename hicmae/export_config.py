"""What ``config.json`` of an exported folder says: schema 3, and schemas 1 and 2 as they were written before.
docs/export.md describes every field."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from hicmae import __version__
from hicmae.backbone import MODALITIES, Modality, known_modalities
from hicmae.config import InputSpec, ModelConfig
from hicmae.heads import Targets
from hicmae.pretraining import Objective

SCHEMA = 3
Kind = Literal["backbone", "recognizer"]
KINDS: tuple[Kind, ...] = ("backbone", "recognizer")
WEIGHTS, DECODER = "model.safetensors", "decoder.safetensors"

FIELDS: dict[str, tuple[type, ...]] = {
    "schema": (int,),
    "hicmae": (str,),
    "kind": (str,),
    "model": (dict,),
    "input": (dict,),
    "modalities": (list,),
    "targets": (dict, type(None)),
    "decoder": (dict, type(None)),
    "parameters": (int,),
    "sha256": (dict,),
    "provenance": (dict,),
    "digest": (str,),
}
"""Names and types at the top of schemas 2 and 3; all are there, and no others."""

SINCE_3: dict[str, tuple[str, ...]] = {
    "model": ("skip_connections", "feature_fusion", "fusion_direction"),
    "objective": ("contrast",),
}
"""Fields that older schemas do not have: models were the paper's in these, which is their default."""


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
    objective: Objective | None = None
    """What the decoder was trained for; ``None`` where the folder holds none."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """How the model came about: job, data, recipe, metrics. Plain JSON values."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Digest of every other file of the folder, by name."""

    def derived(self) -> dict[str, Any]:
        """Provenance of weights that are made of these and are others: scores of these are not theirs."""
        return {"derived_from": {"sha256": self.sha256, "provenance": self.provenance}}

    def to_settings(self, parameters: int) -> dict[str, Any]:
        """The content of ``config.json``, for a model of so many parameters (the decoder's are not counted)."""
        targets = self.targets
        settings: dict[str, Any] = {
            "schema": SCHEMA,
            "hicmae": __version__,
            "kind": self.kind,
            "model": self.config.to_dict(),
            "input": self.spec.to_dict(),
            "modalities": list(self.modalities),
            "targets": None if targets is None else {
                "classes": list(targets.classes),
                "dimensions": list(targets.dimensions),
                "ranges": {name: list(both) for name, both in targets.ranges.items()},
            },
            "decoder": None if self.objective is None else {"objective": asdict(self.objective)},
            "parameters": parameters,
            "sha256": dict(self.sha256),
            "provenance": self.provenance,
        }  # fmt: skip
        seal(settings)
        return settings


def seal(settings: dict[str, Any]) -> None:
    """Enter into the content of ``config.json`` its own digest, by which a change of a value is noticed."""
    settings["digest"] = _digest(settings)


def _digest(settings: Mapping[str, Any]) -> str:
    """Of the values, not of how they are laid out."""
    values = {name: value for name, value in settings.items() if name != "digest"}
    values = json.loads(json.dumps(values))  # as they are read again
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def export_from_settings(settings: Any, path: Path) -> Export:
    """The content of ``config.json``, checked.

    Args:
        settings: what JSON gave.
        path: the file, for messages.

    Raises:
        ValueError: no export configuration, a newer schema (with what to do), or values that make no sense.
    """
    schema = settings.get("schema") if isinstance(settings, Mapping) else None
    if isinstance(settings, Mapping) and settings.get("format", "safetensors") != "safetensors":
        raise ValueError(
            f"{path.parent} is an export as {settings['format']}, which the README.md in it says how to run; for this "
            "library export the checkpoint as safetensors"
        )
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise ValueError(f"{path} is no export configuration: it has no number under 'schema'")
    if schema > SCHEMA:
        raise ValueError(
            f"{path} has export schema {schema}, and this hicmae {__version__} reads up to {SCHEMA}; update hicmae "
            f"(the folder was written by {settings.get('hicmae', 'a newer one')}), or ask whoever made the folder for "
            f"an export by hicmae {__version__}"
        )
    found = settings
    if schema == 1:
        settings = _from_schema_1(settings, path)
    if schema < 3:
        settings = _from_schema_2(settings)
    _check_fields(settings, path)
    _check_values(settings, path)
    try:
        targets, decoder = settings["targets"], settings["decoder"]
        export = Export(
            kind=settings["kind"],
            config=ModelConfig.from_dict(settings["model"]),
            spec=InputSpec.from_dict(settings["input"]),
            modalities=known_modalities(settings["modalities"]),
            targets=None if targets is None else Targets(**targets),
            objective=None if decoder is None else Objective(**decoder["objective"]),
            provenance=settings["provenance"],
            sha256=settings["sha256"],
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is no export configuration: {error!r}; copy the folder again") from error
    _check_meaning(export, path)
    if schema > 1 and settings["digest"] != _digest(found):
        raise ValueError(
            f"{path} was altered after the export: its values do not have the digest {settings['digest'][:12]}... that "
            "it gives; copy the folder again, and change names of classes and the like where the model is made"
        )
    return export


def _from_schema_1(settings: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Schema 1 had classes and dimensions at the top, no ranges, no decoder, and the digest of the weights alone."""
    try:
        classes, dimensions = settings["classes"], settings["dimensions"]
    except KeyError as error:
        raise ValueError(f"{path} is no export configuration: it has no {error}; copy the folder again") from error
    rest = {name: value for name, value in settings.items() if name not in ("classes", "dimensions")}
    targets = {"classes": classes, "dimensions": dimensions} if classes or dimensions else None
    return {
        **rest,
        "targets": targets,
        "decoder": None,
        "digest": "",
        "provenance": _without_places(settings.get("provenance")),
    }


def _from_schema_2(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Schemas 1 and 2 had no switches; damage is left for the checks to find."""
    found = dict(settings)
    model, decoder = found.get("model"), found.get("decoder")
    if isinstance(model, Mapping):
        defaults = ModelConfig().to_dict()
        found["model"] = {name: defaults[name] for name in SINCE_3["model"]} | dict(model)
    if isinstance(decoder, Mapping) and isinstance(objective := decoder.get("objective"), Mapping):
        defaults = asdict(Objective())
        objective = {name: defaults[name] for name in SINCE_3["objective"]} | dict(objective)
        found["decoder"] = {**decoder, "objective": objective}
    return found


def _without_places(provenance: Any) -> Any:
    """Schema 1 gave data and initial weights by their whole paths; what is made of it shall not pass them on."""
    if not isinstance(provenance, Mapping):
        return provenance
    found = dict(provenance)
    if isinstance(data := found.get("data"), Mapping) and isinstance(data.get("name"), str):
        found["data"] = {**data, "name": Path(data["name"]).name}
    if isinstance(init := found.get("init"), str):
        found["init"] = None if init == "random weights" else {"name": Path(init).name}
    return found


def _check_fields(settings: Mapping[str, Any], path: Path) -> None:
    problems = [f"has no {name!r}" for name in FIELDS if name not in settings]
    problems += [f"has {name!r}, which this schema has not" for name in settings if name not in FIELDS]
    problems += [
        f"has {type(settings[name]).__name__} under {name!r}"
        for name, types in FIELDS.items()
        if name in settings and not isinstance(settings[name], types)
    ]
    if problems:
        raise ValueError(f"{path} is no export configuration: it {'; it '.join(problems)}; copy the folder again")


def _check_values(settings: Mapping[str, Any], path: Path) -> None:
    """Every field of the architecture and the input is there, with a value of its kind: nothing is made up."""
    parts = {"model": (settings["model"], ModelConfig().to_dict()), "input": (settings["input"], InputSpec().to_dict())}
    if settings["decoder"] is not None:
        parts["decoder.objective"] = (settings["decoder"].get("objective"), asdict(Objective()))
    problems = []
    for part, (found, like) in parts.items():
        if not isinstance(found, Mapping):
            problems.append(f"no object under {part!r}")
            continue
        problems += [f"no {part}.{name}" for name in like if name not in found]
        problems += [
            f"{part}.{name} {found[name]!r}" for name in like if name in found and not _is_like(found[name], like[name])
        ]
    digests = settings["sha256"]
    problems += [f"sha256.{name} {digest!r}" for name, digest in digests.items() if not isinstance(digest, str)]
    if problems:
        raise ValueError(f"{path} is no export configuration: it has {'; '.join(problems)}; copy the folder again")


def _is_like(value: Any, example: Any) -> bool:
    """Whether a value out of JSON is of the kind of an example: a whole number is a number, a truth value is not."""
    if isinstance(example, list):
        return isinstance(value, list) and all(_is_like(one, example[0]) for one in value)
    if isinstance(example, float):
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is type(example)


def _check_meaning(export: Export, path: Path) -> None:
    problems = [
        f"model.{name} is {getattr(export.config, name)}, input.{name} {getattr(export.spec, name)}"
        for name in ("image_size", "num_frames", "audio_frames", "mel_bins")
        if getattr(export.config, name) != getattr(export.spec, name)
    ]
    if not len(export.spec.image_mean) == len(export.spec.image_std) == 3:
        problems.append("image_mean and image_std are not of three colours")
    if export.kind not in KINDS:
        problems.append(f"kind is {export.kind!r}, which is none of {', '.join(KINDS)}")
    elif (export.kind == "recognizer") != (export.targets is not None):
        problems.append(f"a {export.kind} {'without' if export.targets is None else 'with'} targets")
    needed = {WEIGHTS} | ({DECODER} if export.objective is not None else set())
    if missing := sorted(needed - set(export.sha256)):
        problems.append(f"no sha256 of {', '.join(missing)}")
    if paths := sorted(name for name in export.sha256 if Path(name).name != name):
        problems.append(f"{', '.join(paths)} is no name of a file in this folder")
    if problems:
        raise ValueError(f"{path} contradicts itself: {'; '.join(problems)}; copy the folder again")
