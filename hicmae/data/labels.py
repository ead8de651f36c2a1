"""From label columns to training targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class LabelSpec:
    """Which label columns are learnt, and how.

    >>> spec = LabelSpec(classes={"emotion": ("angry", "happy")}, dimensions={"valence": (-1.0, 1.0)})
    >>> spec.encode({"emotion": "happy", "valence": 0.5}, clip_id="clip1")
    {'emotion': 1, 'valence': 0.5}
    """

    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Class names by categorical column, in the order of the model's outputs."""
    dimensions: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """(lowest, highest) valid value by numeric column; values are passed on unscaled."""

    def __post_init__(self) -> None:
        # plain types, so that the object pickles, compares and turns into JSON
        object.__setattr__(self, "classes", {name: tuple(names) for name, names in self.classes.items()})
        object.__setattr__(
            self, "dimensions", {name: (float(low), float(high)) for name, (low, high) in self.dimensions.items()}
        )
        if not self.classes and not self.dimensions:
            raise ValueError("no labels chosen; name at least one column in classes or dimensions")
        if both := sorted(set(self.classes) & set(self.dimensions)):
            raise ValueError(f"columns {both} are both in classes and in dimensions; keep each in one of them")
        for column, names in self.classes.items():
            if len(names) < 2 or len(set(names)) != len(names):
                raise ValueError(f"classes of {column!r} are {list(names)}; give at least two, each once")
        for column, (low, high) in self.dimensions.items():
            if not low < high:
                raise ValueError(f"range of {column!r} is ({low:g}, {high:g}); the lowest value comes first")

    def encode(self, labels: Mapping[str, str | float], *, clip_id: str) -> dict[str, int | float]:
        """Class numbers and values of one clip; a label missing or outside the choice raises ``ValueError``."""
        targets: dict[str, int | float] = {}
        for column, names in self.classes.items():
            value = labels.get(column)
            if value is None:
                raise ValueError(_missing(clip_id, column, labels))
            if str(value) not in names:
                raise ValueError(
                    f"clip {clip_id!r}: {column} is {value!r}, which is not among the classes {list(names)}; "
                    "correct the manifest, add the class, or leave such clips out"
                )
            targets[column] = names.index(str(value))
        for column, (low, high) in self.dimensions.items():
            value = labels.get(column)
            if value is None:
                raise ValueError(_missing(clip_id, column, labels))
            try:
                number = float(value)
            except ValueError:
                number = float("nan")
            if not low <= number <= high:
                raise ValueError(
                    f"clip {clip_id!r}: {column} is {value!r}, which is not a number from {low:g} to {high:g}; "
                    "correct the manifest or the range"
                )
            targets[column] = number
        return targets

    def filler(self) -> dict[str, int | float]:
        """Valid targets for rows that stand for no clip."""
        return dict.fromkeys(self.classes, 0) | {name: low for name, (low, _) in self.dimensions.items()}

    def check(self, source: Any) -> None:
        """Encode the labels of every clip of a ``ClipSource``; one ``ValueError`` names what is wrong (first 20)."""
        problems = []
        for i in range(len(source)):
            info = source.info(i)
            try:
                self.encode(info.labels, clip_id=info.clip_id)
            except ValueError as error:
                problems.append(str(error))
        if problems:
            more = len(problems) - _SHOWN
            lines = problems[:_SHOWN] + ([f"... and {more} more"] if more > 0 else [])
            raise ValueError(
                f"{source.name}: {len(problems)} of {len(source)} clips lack a usable label\n  " + "\n  ".join(lines)
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "classes": {name: list(names) for name, names in self.classes.items()},
            "dimensions": {name: list(bounds) for name, bounds in self.dimensions.items()},
        }


def _missing(clip_id: str, column: str, labels: Mapping[str, str | float]) -> str:
    return (
        f"clip {clip_id!r} has no label {column!r} (it has {sorted(labels) or 'none'}); fill in the manifest, "
        "or leave such clips out"
    )
