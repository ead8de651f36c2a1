"""Has a stage become slower since an earlier measurement? Told from what a noisy machine does by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hicmae.bench.measure import Spread
from hicmae.bench.result import BenchResult, Row, this_machine
from hicmae.bench.settings import BenchSettings, comparable

LEAST = 1.10
"""Times the time before: what is less is no slowdown, however steady the figures were."""
_ERRORS = 3.0
"""Standard errors that noise may take."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A stage then and now, by its speed relative to the matrix product."""

    name: str
    before: Spread
    now: Spread
    flops_per_clip: int | None

    @property
    def factor(self) -> float:
        """Time now over time before, with the machine's own speed taken out; above 1 is slower."""
        return self.before.median / self.now.median

    @property
    def allowed(self) -> float:
        """The factor that noise may have made: three standard errors of both medians, and at least ``LEAST``."""
        spread = math.hypot(self.before.error / self.before.median, self.now.error / self.now.median)
        return max(LEAST, math.exp(_ERRORS * spread))

    @property
    def slower(self) -> bool:
        """Whether the stage has become slower."""
        return self.factor > self.allowed

    def __str__(self) -> str:
        if self.flops_per_clip is not None:
            before, now = (f"{100 * s.median * self.flops_per_clip / 1e12:.1f}%" for s in (self.before, self.now))
            what = f"{before} of the matrix product's speed before, {now} now"
        else:
            what = (
                f"{self.before.median:.0f} clips in the time of a TFLOP of matrix product before, "
                f"{self.now.median:.0f} now"
            )
        return f"{self.name}: {what} ({self.factor:.2f} times the time; noise may make it {self.allowed:.2f})"


def check_comparable(baseline: BenchResult, settings: BenchSettings) -> None:
    """Refuse a baseline of another machine or of other settings.

    Raises:
        ValueError: says what differs.
    """
    then = comparable(baseline.settings) | {name: baseline.machine[name] for name in ("device", "cores")}
    now_machine = this_machine(settings)
    now = comparable(settings) | {name: now_machine[name] for name in ("device", "cores")}
    differing = [f"{name} was {then[name]!r} and is {now[name]!r}" for name in now if then[name] != now[name]]
    if differing:
        raise ValueError(
            f"the baseline of {baseline.date} cannot be compared with: {', '.join(differing)}; give the same options, "
            "or measure a baseline on this machine"
        )


def check_stages(baseline: BenchResult, stages: Sequence[str]) -> None:
    """Refuse a baseline that no stage can be compared with, before anything is measured.

    Raises:
        ValueError: says which stages it has.
    """
    has = {row.name.split(",")[0] for row in baseline.rows}
    if not has.intersection(stages):
        raise ValueError(
            f"the baseline of {baseline.date} has none of the stages {', '.join(stages) or '(none is given)'}; it has "
            f"{', '.join(row.name for row in baseline.rows) or 'none'}: name them with --stages"
        )


def changes(baseline: BenchResult, rows: tuple[Row, ...]) -> list[Change]:
    """Every row that both have.

    Raises:
        ValueError: there is none.
    """
    before = {row.name: row for row in baseline.rows}
    both = [row for row in rows if row.name in before and before[row.name].clips == row.clips]
    if not both:
        raise ValueError(
            f"the baseline of {baseline.date} has none of the stages measured now, with as many clips a step; it has "
            f"{', '.join(before) or 'none'}"
        )
    return [
        Change(name=row.name, before=before[row.name].relative, now=row.relative, flops_per_clip=row.flops_per_clip)
        for row in both
    ]
