"""How processes of a job meet and share their work, where Lightning's defaults are not ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.fabric.plugins import ClusterEnvironment
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy

_DDP = {"gradient_as_bucket_view": True, "broadcast_buffers": False}


def cluster_plugins(plugins: Sequence[Any]) -> list[Any]:
    """For processes that ``srun`` started, SLURM's environment without Lightning's own requeueing.

    Nothing where ``plugins`` hold an environment, or where ``torchrun`` started them.

    Lightning answers SIGUSR1 with a checkpoint of its own within the running batch and ``scontrol requeue``. Here
    ``StepStatus`` and ``ResumePoints`` save at the end of the step, and the batch script puts the job back
    (configs/slurm/pretrain.sbatch).
    """
    given = any(isinstance(plugin, ClusterEnvironment) for plugin in plugins)
    if given or TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return []
    return [SLURMEnvironment(auto_requeue=False)]


def settle_ddp(strategy: Strategy) -> None:
    """Spare DDP what our models do not need, unless the user's own settings say otherwise.

    Gradients live in the buffers that are summed over ranks (no second copy of them), and buffers, which are constants
    in every model here, are not sent at every step.
    """
    if type(strategy) is DDPStrategy:
        for name, value in _DDP.items():
            strategy._ddp_kwargs.setdefault(name, value)
