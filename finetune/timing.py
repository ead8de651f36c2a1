"""The timing of the input, which fine-tuning may choose anew: no weight depends on it."""

from __future__ import annotations

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


def check_same_timing(found: InputSpec, expected: InputSpec) -> None:
    """Raise ``ValueError`` where weights were trained with another timing than this run's."""
    for name in _TIMING:
        theirs, ours = getattr(found, name), getattr(expected, name)
        if theirs != ours:
            raise ValueError(
                f"the checkpoint was trained with {name}={theirs:g}, but this run has {ours:g}; give "
                f"--model.input '{{{name}: {theirs:g}}}'"
            )
