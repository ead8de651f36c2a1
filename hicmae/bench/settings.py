"""What is measured, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from hicmae.config import ModelConfig
from hicmae.inference.devices import job_devices
from hicmae.layers import Recompute
from hicmae.speed import Compile
from hicmae.training.precision import has_bfloat16

Precision = Literal["fp32", "bf16"]
STAGES = ("decode", "loader", "transform", "pretrain", "finetune", "embed", "end-to-end")
MODEL_STAGES = ("pretrain", "finetune", "embed")
"""Stages whose arithmetic is counted."""


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """Settings of a measurement; ``for_device`` fills in what depends on the machine."""

    preset: str = "base"
    """Size of the model."""
    batch: int = 4
    """Clips a step."""
    device: str = "cpu"
    """Where the model computes."""
    precision: Precision = "fp32"
    """``bf16``: autocast to bfloat16, as the jobs do on GPUs; ``fp32``: everything in float32."""
    compile: Compile = "auto"
    """As ``--model.speed.compile`` of the jobs."""
    recompute: Recompute | None = None
    """As ``--model.speed.recompute`` of the jobs; ``None``: what each of them does by default."""
    threads: int = 1
    """Threads of the processor's arithmetic."""
    workers: int = 1
    """Decoding processes of the loader and of the whole job; 0 decodes in the measuring process."""
    rounds: int = 5
    """Counted rounds of a stage, at least."""
    seconds: float = 3.0
    """Further rounds are run until a stage has taken so long."""

    def __post_init__(self) -> None:
        ModelConfig.preset(self.preset)
        for name, least in (("batch", 1), ("threads", 1), ("workers", 0), ("rounds", 1), ("seconds", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        if self.compile not in get_args(Compile):
            raise ValueError(f"compile={self.compile!r} is not known; choose {', '.join(get_args(Compile))}")
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision={self.precision!r} is not known; choose fp32 or bf16")

    def check_device(self) -> None:
        """``ValueError`` where the device lacks the precision: not when made, as other machines' settings are read."""
        if self.precision == "bf16" and self.on_gpu and not has_bfloat16():
            raise ValueError(f"precision=bf16: {torch.cuda.get_device_name()} has no bfloat16; give fp32")

    @property
    def on_gpu(self) -> bool:
        """Whether the model computes on a GPU."""
        return self.torch_device.type == "cuda"

    @property
    def one_thread(self) -> bool:
        """Whether a single thread of the processor computes."""
        return not self.on_gpu and self.threads == 1

    @property
    def torch_device(self) -> torch.device:
        """``device``, for torch."""
        return torch.device(self.device)

    @property
    def dtype(self) -> torch.dtype:
        """Of the model's matrix products."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @property
    def config(self) -> ModelConfig:
        """The architecture."""
        return ModelConfig.preset(self.preset)

    @property
    def warmup(self) -> int:
        """Rounds that are not counted: compilation takes more than one."""
        return 3 if self.on_gpu or self.compile not in ("auto", "off") else 1


def one_device(device: str) -> str:
    """``auto``, ``cpu`` or ``cuda:1`` as one device that is there; ``ValueError`` for another."""
    return job_devices(device, 1)[0]


def known_stages(text: str) -> tuple[str, ...]:
    """Stages named with commas between, in the order in which they are run.

    Raises:
        ValueError: an unknown one, or none.
    """
    wanted = [word for word in text.replace(",", " ").split() if word]
    unknown = [word for word in wanted if word not in STAGES]
    if unknown or not wanted:
        raise ValueError(f"--stages: {', '.join(unknown) or 'none'} is no stage; choose among {', '.join(STAGES)}")
    return tuple(stage for stage in STAGES if stage in wanted)


def comparable(settings: BenchSettings) -> dict[str, Any]:
    """The settings without which two measurements are not of the same thing."""
    names = ("preset", "batch", "precision", "compile", "recompute", "threads", "workers")
    return {name: getattr(settings, name) for name in names}
