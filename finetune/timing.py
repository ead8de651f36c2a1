"""The timing of the input, which fine-tuning may choose anew: no weight depends on it."""

from __future__ import annotations

from pathlib import Path

from hicmae.config import InputSpec

_TIMING = ("frame_interval_s", "audio_seconds")


def with_timing(spec: InputSpec, changes: dict[str, float]) -> InputSpec:
    """The input with another timing.

    Raises:
        ValueError: a field that is none of the timing: sizes belong to the weights, means to their training.
    """
    if unknown := sorted(set(changes) - set(_TIMING)):
        raise ValueError(f"model.input has {unknown}; what fine-tuning can change of the input is {list(_TIMING)}")
    return spec.with_(**changes)


def check_same_timing(found: InputSpec, expected: InputSpec, what: str | Path) -> None:
    """Raise ``ValueError`` where weights were trained with another timing than this run's."""
    theirs = {name: getattr(found, name) for name in _TIMING}
    ours = {name: getattr(expected, name) for name in _TIMING}
    if theirs != ours:
        differing = [name for name in _TIMING if theirs[name] != ours[name]]
        trained, given = (", ".join(f"{name}={one[name]:g}" for name in differing) for one in (theirs, ours))
        remedy = ", ".join(f"{name}: {value:g}" for name, value in theirs.items())
        raise ValueError(
            f"{what} was trained with {trained}, but this run has {given}; give --model.input '{{{remedy}}}'"
        )
