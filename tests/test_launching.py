"""How processes meet: SLURM without Lightning's requeueing, its signals, and what DDP does not send."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy

from hicmae.training.launching import cluster_plugins, settle_ddp
from pretrain.__main__ import main
from tests import test_pretrain
from tests.test_pretrain import shards  # noqa: F401  a fixture
from tests.two_ranks import free_port

SLURM = {"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "hicmae",
         "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1"}  # fmt: skip


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


class SignalAtStep2(Callback):
    """Sends this process what a cluster sends before a job's time is up."""

    environment: Any = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        SignalAtStep2.environment = trainer._accelerator_connector.cluster_environment
        if trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGUSR1)


@pytest.mark.usefixtures("slurm")
def test_under_slurm_a_signal_saves_once_and_leaves_the_requeueing_to_the_batch_script(
    shards: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(test_pretrain.arguments(shards, tmp_path, "--trainer.strategy=ddp",
                                     "--trainer.callbacks+=tests.test_launching.SignalAtStep2"))  # fmt: skip
    assert stop.value.code == 128 + signal.SIGUSR1
    assert not dist.is_initialized(), "threads of gloo may abort a process that ends so, with another status"
    assert isinstance(SignalAtStep2.environment, SLURMEnvironment)
    assert not SignalAtStep2.environment.auto_requeue
    assert sorted(path.name for path in tmp_path.rglob("*.ckpt")) == ["last.ckpt", "step00000003.ckpt"]  # no hpc_ckpt_1


def test_no_environment_is_put_where_there_is_none_or_another() -> None:
    assert cluster_plugins([]) == []


@pytest.mark.usefixtures("slurm")
def test_an_environment_of_the_users_and_torchruns_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [plugin.auto_requeue for plugin in cluster_plugins([])] == [False]
    assert cluster_plugins([LightningEnvironment()]) == []
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert cluster_plugins([]) == []


def test_ddp_sends_no_constants_and_keeps_gradients_once_unless_told_otherwise() -> None:
    plain, told = DDPStrategy(), DDPStrategy(broadcast_buffers=True)
    for strategy in (plain, told):
        settle_ddp(strategy)
    assert plain._ddp_kwargs == {"gradient_as_bucket_view": True, "broadcast_buffers": False}
    assert told._ddp_kwargs == {"gradient_as_bucket_view": True, "broadcast_buffers": True}
