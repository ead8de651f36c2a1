"""A profile of a few steps: where the host waits for the GPU, and which kernels compute attention."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from hicmae.bench.measure import synchronize

STEPS = 3
_RANGE = "hicmae bench step"
_WAITS = re.compile(
    r"(cuda|hip)(Stream|Device|Event)Synchronize|aten::(item|_local_scalar_dense|nonzero|is_nonzero)|Memcpy DtoH.*"
)
_OWN = ("aten::_fused_adamw_",)
"""Callers that read numbers where those lie on the processor, and on a GPU do without."""
_ATTENTION = re.compile(r"flash|fmha|attention|sdpa", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class TraceReport:
    """What was seen in the steps."""

    waits: dict[str, int]
    """Calls and copies for which the host waits (on a GPU), by name and caller, and their number in ``STEPS`` steps."""
    attention: tuple[str, ...]
    """Names of operators and kernels of attention."""


def trace(step: Callable[[], object], path: Path, *, device: torch.device) -> TraceReport:
    """Profile ``STEPS`` steps after two that warm up, and write them for chrome://tracing or Perfetto.

    Args:
        step: what is profiled.
        path: JSON file to write.
        device: where it computes.
    """
    for _ in range(2):
        step()
    synchronize(device)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=activities, acc_events=True) as profiler:
        for _ in range(STEPS):
            with record_function(_RANGE):
                step()
    path.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(path))
    return _report(list(profiler.events() or []))


def _report(events: list[Any]) -> TraceReport:
    ranges = [(e.time_range.start, e.time_range.end) for e in events if e.name == _RANGE]
    # The profiler waits for the device at its end: only what begins within a step counts.
    inside = [e for e in events if any(start <= e.time_range.start <= end for start, end in ranges)]
    waits = [e for e in inside if _waits(e) and not _waits(e.cpu_parent)]  # a wait within a wait is one
    return TraceReport(
        waits=dict(Counter(_called(e) for e in waits if _caller(e) not in _OWN)),
        attention=tuple(sorted({e.name for e in inside if _ATTENTION.search(e.name)})),
    )


def _waits(event: Any) -> bool:
    return event is not None and _WAITS.fullmatch(event.name) is not None


def _caller(event: Any) -> str:
    return "" if event.cpu_parent is None or event.cpu_parent.name == _RANGE else event.cpu_parent.name


def _called(event: Any) -> str:
    """The name, and who called it: where to look."""
    return f"{event.name} in {_caller(event)}" if _caller(event) else event.name


def describe(report: TraceReport, path: Path, *, on_gpu: bool) -> str:
    """The report in lines."""
    waits = ", ".join(f"{name} {count}" for name, count in sorted(report.waits.items()))
    where = f"in {STEPS} steps" if on_gpu else f"in {STEPS} steps (as far as a processor can tell)"
    lines = [
        f"trace of {STEPS} steps: {path}",
        f"host waits {where}: {waits or 'none'}",
        "attention:" + ("".join(f"\n  {name}" for name in report.attention) or " no kernel of its own"),
    ]
    return "\n".join(lines) + "\n"
