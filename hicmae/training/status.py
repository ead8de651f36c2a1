"""Stopping together: a loss that is not finite, or a signal, ends all ranks at the same step.

After every batch two flags (not finite; the signal that asked to stop) are combined over ranks. On a GPU they are read
one batch late, so that the host never waits for the running step; before a checkpoint is written all are read, so that
none holds broken weights.
"""

from __future__ import annotations

import json
import signal
from collections import deque
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from hicmae.data.batch import ClipBatch
from hicmae.training.run_directory import run_directory

_STOP = (signal.SIGTERM, signal.SIGUSR1)
"""What asks a job to stop: clusters send either before a job's time is up. The higher number, SIGTERM's, prevails."""


class NonFiniteLossError(RuntimeError):
    """The loss of some rank was NaN or infinite."""


class StopRequestedError(SystemExit):
    """A signal asked the job to stop; a checkpoint was written. The exit status is 128 and the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


@dataclass
class _Pending:
    """Flags of one step on their way from the device."""

    step: int
    flags: Tensor
    ready: torch.cuda.Event | None
    replay: dict[str, Any]


class StepStatus(Callback):
    """Ends all ranks at the same step after a non-finite loss, a SIGTERM or a SIGUSR1.

    A non-finite loss leaves ``nonfinite/step_N_rank_R.json`` (clip ids, epoch, batch, seed, losses) in the run
    directory and raises ``NonFiniteLossError``. After a signal to any rank, ``ResumePoints`` saves as soon as an
    optimiser step is complete and raises ``StopRequestedError``; start again with ``--ckpt_path auto``.
    """

    def __init__(self) -> None:
        self.stop_agreed = 0
        """Number of the signal by which some rank was asked to stop, once every rank knows; 0: none."""
        self._stop_requested = 0
        self._pending: deque[_Pending] = deque()
        self._previous_handlers: dict[int, Any] = {}

    # ------------------------------------------------------------ signals

    def _request_stop(self, signum: int, frame: FrameType | None) -> None:
        # Only a flag: collectives and file writes do not belong in a signal handler.
        self._stop_requested = max(self._stop_requested, signum)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number in _STOP:
            self._previous_handlers[number] = signal.signal(number, self._request_stop)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers = {}

    # ------------------------------------------------------------ flags

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ClipBatch, batch_idx: int
    ) -> None:
        loss = outputs["loss"].detach()
        nonfinite = (~torch.isfinite(loss)).to(torch.uint8)
        flags = torch.stack([nonfinite, torch.full_like(nonfinite, self._stop_requested)])
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        ready = None
        if flags.is_cuda:
            flags, device_flags = torch.empty_like(flags, device="cpu", pin_memory=True), flags
            flags.copy_(device_flags, non_blocking=True)
            ready = torch.cuda.Event()
            ready.record()
        replay = {
            "step": trainer.global_step,
            "epoch": trainer.current_epoch,
            "batch": batch_idx,
            "rank": trainer.global_rank,
            "world_size": trainer.world_size,
            "seed": getattr(trainer.datamodule, "seed", None),  # type: ignore[attr-defined]
            "clip_ids": list(batch.clip_ids),
            "losses": {name: value.detach() for name, value in outputs.items() if isinstance(value, Tensor)},
        }
        self._pending.append(_Pending(trainer.global_step, flags, ready, replay))
        self._read(trainer, keep=1 if ready is not None else 0)

    def _read(self, trainer: Trainer, *, keep: int) -> None:
        """Read all flags but the newest ``keep``; raise for a non-finite loss."""
        while len(self._pending) > keep:
            pending = self._pending.popleft()
            if pending.ready is not None:
                pending.ready.synchronize()
            nonfinite, stop_here = pending.flags.tolist()
            self.stop_agreed = max(self.stop_agreed, stop_here)
            if nonfinite:
                self._pending.clear()
                self._report(trainer, pending)

    def _report(self, trainer: Trainer, pending: _Pending) -> None:
        replay = pending.replay
        replay["losses"] = {name: value.item() for name, value in replay["losses"].items() if value.numel() == 1}
        path = run_directory(trainer) / "nonfinite" / f"step_{pending.step}_rank_{replay['rank']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(replay, indent=2) + "\n")
        raise NonFiniteLossError(
            f"the loss of a rank was not finite at step {pending.step}; all ranks stopped, nothing was saved after it. "
            f"This rank's batch is in {path}. Go on from the last checkpoint with a lower learning rate or in float32"
        )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Nothing broken is ever saved: wait for the flags of the newest step first."""
        self._read(trainer, keep=0)

    def state_dict(self) -> dict[str, Any]:
        return {}
