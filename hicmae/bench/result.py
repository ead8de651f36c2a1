"""What a measurement found, as plain values that a later one can be compared with."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch

from hicmae import __version__
from hicmae.bench.measure import Spread
from hicmae.bench.settings import BenchSettings

SCHEMA = 1
"""Of ``bench.json``; raised when a reader of it would have to change."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A stage, or one of its variants, in every round."""

    name: str
    """The stage, and the variant if there are several."""
    clips: int
    """Clips a round."""
    seconds: tuple[float, ...]
    """Seconds of each round: of the processor's time where one thread does all the work, else of the wall's."""
    matrix_flops: tuple[float, ...]
    """FLOP/s of a large matrix product in the same rounds, on the same device and threads, in the model's precision."""
    flops_per_clip: int | None = None
    """Floating-point operations of the model for a clip; ``None`` without a model."""
    peak_bytes: int | None = None
    """Most memory of model, gradients, optimiser and activations; ``None`` where it was not measured."""
    data_wait_percent: float | None = None
    """Share of the time in which the job stood still for data; ``None`` without a loader beside a model."""
    batches_ready: float | None = None
    """Mean number of batches that lay ready when one was asked for."""

    @property
    def clips_per_s(self) -> Spread:
        """Over the rounds."""
        return Spread.of([self.clips / taken for taken in self.seconds])

    @property
    def ms(self) -> Spread:
        """Milliseconds a round."""
        return Spread.of([1000 * taken for taken in self.seconds])

    @property
    def relative(self) -> Spread:
        """Clips in the time of a TFLOP of matrix product: speed of the code, whatever else the machine did."""
        return Spread.of([1e12 * self.clips / (t * m) for t, m in zip(self.seconds, self.matrix_flops, strict=True)])

    @property
    def flops_per_s(self) -> float | None:
        """The model's arithmetic, median over rounds."""
        return None if self.flops_per_clip is None else self.flops_per_clip * self.clips_per_s.median

    @property
    def share_of_peak(self) -> Spread | None:
        """The model's arithmetic over that of the matrix product in the same round."""
        if self.flops_per_clip is None:
            return None
        factor, own = self.flops_per_clip / 1e12, self.relative
        return Spread(
            median=own.median * factor, low=own.low * factor, high=own.high * factor, error=own.error * factor
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Versus:
    """A step of ours beside the reference's, in every round."""

    name: str
    """``pretrain`` or ``finetune``, and which part of the step."""
    ours_seconds: tuple[float, ...]
    theirs_seconds: tuple[float, ...]
    ours_peak_bytes: int | None = None
    """Of the whole step."""
    theirs_peak_bytes: int | None = None

    @property
    def ratio(self) -> Spread:
        """Our time over theirs in the same round."""
        return Spread.of([a / b for a, b in zip(self.ours_seconds, self.theirs_seconds, strict=True)])


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """A measurement."""

    settings: BenchSettings
    machine: dict[str, Any]
    """``device`` (its name), ``type`` (cpu, cuda), ``cores``."""
    command: str
    date: str
    versions: dict[str, str]
    rows: tuple[Row, ...]
    versus: tuple[Versus, ...] = field(default=())

    @classmethod
    def now(
        cls, settings: BenchSettings, command: str, rows: Sequence[Row], versus: Sequence[Versus] = ()
    ) -> Self:  # fmt: skip
        """Of this process."""
        return cls(
            settings=settings,
            machine=this_machine(settings),
            command=command,
            date=datetime.date.today().isoformat(),
            versions={"hicmae": __version__, "torch": torch.__version__, "python": platform.python_version()},
            rows=tuple(rows),
            versus=tuple(versus),
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON: what was measured, and for every row what follows from it."""
        values = dataclasses.asdict(self) | {"schema": SCHEMA}
        for row, shown in zip(self.rows, values["rows"], strict=True):
            shown["clips_per_s"] = dataclasses.asdict(row.clips_per_s)
            share = row.share_of_peak
            shown["share_of_peak"] = None if share is None else dataclasses.asdict(share)
        for pair, shown in zip(self.versus, values["versus"], strict=True):
            shown["ratio"] = dataclasses.asdict(pair.ratio)
        return values

    def write(self, path: Path) -> Path:
        """As JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Self:
        """The inverse of ``write``.

        Raises:
            ValueError: not a file of this schema.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            schema = values["schema"]
        except FileNotFoundError:
            raise ValueError(f"--baseline {path} is not there; measure one with --out FOLDER") from None
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"{path} was not written by hicmae bench; give a bench.json") from None
        if schema != SCHEMA:
            raise ValueError(f"{path} has schema {schema}, this version reads {SCHEMA}: measure the baseline again")
        try:
            return cls(
                settings=BenchSettings(**values["settings"]),
                rows=tuple(_built(Row, row) for row in values["rows"]),
                versus=tuple(_built(Versus, pair) for pair in values["versus"]),
                **{name: values[name] for name in ("machine", "command", "date", "versions")},
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{path} is of another version, or damaged ({error}): measure the baseline again"
            ) from None


def _built(cls: type, values: Mapping[str, Any]) -> Any:
    names = [item.name for item in dataclasses.fields(cls)]
    return cls(**{n: tuple(v) if isinstance(v := values[n], list) else v for n in names})


def this_machine(settings: BenchSettings) -> dict[str, Any]:
    """What figures depend on besides the code."""
    if settings.on_gpu:
        device = torch.cuda.get_device_name(settings.torch_device)
    else:
        device = _processor()
    return {"device": device, "type": settings.torch_device.type, "cores": len(os.sched_getaffinity(0))}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
