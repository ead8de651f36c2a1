"""Fully sharded data-parallel training: every rank keeps a share of weights, gradients and moments.

``--trainer.strategy sharded``. A block's weights come together just before it works and part again after it
(``torch.distributed.fsdp.fully_shard``); parameters keep their names and axes, so weight decay and learning rates go
by them as ever, and the losses are those of DDP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from hicmae.layers import Block
from hicmae.pretraining import HiCMAE

SHARDED = "sharded"
"""The name under which the command line finds the strategy."""
_PRECISIONS = ("32-true", "bf16-mixed")


@StrategyRegistry.register(SHARDED, description="Weights, gradients and moments shared out over all ranks (FSDP2).")
class ShardedStrategy(DDPStrategy):
    """Pre-training with a share of the model on every rank; processes start and meet as DDP's do.

    Checkpoints are what DDP writes: one file with whole weights and moments, gathered on rank 0. A run may go on under
    either strategy and on another number of ranks. Each rank builds the whole model once before it is shared out.

    Args:
        reshard_after_forward: free a block's gathered weights until its backward pass gathers them again; off: keep
            them meanwhile, for one gathering less and the memory of the whole weights.
        gather_bf16: with ``bf16-mixed``, gather weights as bfloat16: half of the bytes. Products round them so anyway;
            norms' scales, biases and mask tokens, which they do not, are then rounded too. Gradients are summed in
            float32 either way.
    """

    def __init__(self, reshard_after_forward: bool = True, gather_bf16: bool = True) -> None:
        super().__init__()
        self.reshard_after_forward = reshard_after_forward
        self.gather_bf16 = gather_bf16

    # ------------------------------------------------------------ sharing out

    def setup(self, trainer: Trainer) -> None:
        """Share the model out over the ranks, if it is to be trained, and make its optimiser.

        Raises:
            ValueError: another job than pre-training, a precision other than float32 and bf16-mixed, compilation of
                more than blocks, whose weights come together between graphs, or ``micro_batch_size``, whose gradients
                are taken outside of the model's own forward pass.
        """
        assert self.accelerator is not None
        module: Any = self.lightning_module
        fitting = trainer.state.fn == TrainerFn.FITTING
        self._check(module)
        self.accelerator.setup(trainer)
        self.model_to_device()
        if not isinstance(module.model, FSDPModule):
            with torch.no_grad():
                for tensor in [*module.parameters(), *module.buffers()]:
                    dist.broadcast(tensor.detach(), src=0)  # as DDP begins: all ranks have rank 0's weights
            if fitting:
                mesh = init_device_mesh(self.root_device.type, (self.world_size,))
                bf16 = self.precision_plugin.precision == "bf16-mixed" and self.gather_bf16
                shard(module.model, mesh, reshard_after_forward=self.reshard_after_forward, gather_bf16=bf16)
        if fitting:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def _check(self, module: Any) -> None:
        if not isinstance(getattr(module, "model", None), HiCMAE):
            raise ValueError(f"trainer.strategy={SHARDED} is for pre-training alone; take trainer.strategy=ddp here")
        if self.precision_plugin.precision not in _PRECISIONS:
            raise ValueError(
                f"trainer.precision={self.precision_plugin.precision} does not go with trainer.strategy={SHARDED}; "
                f"take {' or '.join(_PRECISIONS)}"
            )
        if module.speed.compile == "whole":
            raise ValueError(
                f"model.speed.compile=whole does not go with trainer.strategy={SHARDED}; take blocks, or auto"
            )
        if getattr(module, "micro_batch_size", None) is not None:
            raise ValueError(
                f"model.micro_batch_size does not go with trainer.strategy={SHARDED}; take trainer.strategy=ddp, or "
                "more GPUs with a smaller data.batch_size and model.objective.negatives=global"
            )

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Within a window of accumulated batches, every rank keeps the whole gradients until the last."""
        model: Any = self.lightning_module.model  # type: ignore[union-attr]
        model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            model.set_requires_gradient_sync(True)

    def teardown(self) -> None:
        """Leave the shares where they are: what follows a training gathers them there."""
        assert self.cluster_environment is not None
        assert self.accelerator is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()
        self.checkpoint_io.teardown()

    # ------------------------------------------------------------ checkpoints

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole weights on rank 0, nothing elsewhere; all ranks call this together."""
        assert self.lightning_module is not None
        return whole_state(self.lightning_module.state_dict(), keep=self.is_global_zero)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take whole weights, before the model is shared out or after."""
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        state = {name: _like(own.get(name), value) for name, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(state, strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Whole moments on rank 0, nothing elsewhere; all ranks call this together."""
        state: dict[str, Any] = super().optimizer_state(optimizer)
        moments = {index: whole_state(one, keep=self.is_global_zero) for index, one in state["state"].items()}
        return state | {"state": moments}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Each rank takes its share of whole moments."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            indices = [index for group in state["param_groups"] for index in group["params"]]
            parameters = dict(zip(indices, own, strict=True))
            shares = {
                index: {name: _like(parameters[index], value) for name, value in one.items()}
                for index, one in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": shares})


def shard(model: HiCMAE, mesh: DeviceMesh, *, reshard_after_forward: bool = True, gather_bf16: bool = False) -> None:
    """Share ``model`` out over the ranks of ``mesh`` in place: each block is a unit, and so is all the rest together.

    Autocast, not the units, decides in which precision an operation works: a unit that cast its inputs would also cut
    the residual stream down to bfloat16.
    """
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if gather_bf16 else None, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=reshard_after_forward, mp_policy=policy)
    # The rest is small and keeps its gathered weights: its output is a dataclass, into which torch does not look for
    # the tensors that would say when to gather them again.
    fully_shard(model, mesh=mesh, reshard_after_forward=False, mp_policy=policy)


def whole_state(state: Mapping[str, Any], *, keep: bool) -> dict[str, Any]:
    """``state`` with every shared tensor gathered, on the CPU, where ``keep``; empty elsewhere.

    All ranks must call this together.
    """
    whole: dict[str, Any] = {}
    for name, value in state.items():
        full = value.full_tensor() if isinstance(value, DTensor) else value
        if keep:
            whole[name] = full.detach().cpu() if isinstance(full, Tensor) else full
    return whole


def whole_model(model: HiCMAE, *, keep: bool) -> HiCMAE | None:
    """``model``, or where it is shared out a copy with whole weights on its device; ``None`` where not ``keep``.

    All ranks must call this together.
    """
    if not isinstance(model, FSDPModule):
        return model if keep else None
    state = whole_state(model.state_dict(), keep=keep)
    if not keep:
        return None
    copy = HiCMAE(model.config, objective=model.objective, spec=model.spec, modalities=model.modalities)
    copy.load_state_dict(state)
    return copy.to(model.image_mean.device)


def joint_norm(gradients: Sequence[Tensor]) -> Tensor:
    """L2 norm over all gradients, of which each rank may hold a share; all ranks must call this together."""
    norm = torch.nn.utils.get_total_norm([g.to_local() if isinstance(g, DTensor) else g for g in gradients])
    if any(isinstance(gradient, DTensor) for gradient in gradients):
        squares = norm.square()
        dist.all_reduce(squares)
        norm = squares.sqrt()
    return norm


def _like(own: Any, whole: Any) -> Any:
    """This rank's share of ``whole``, if ``own`` is such a share of a tensor of that shape."""
    if isinstance(own, DTensor) and isinstance(whole, Tensor) and whole.shape == own.shape:
        local = whole.to(own.device, own.dtype)
        return distribute_tensor(local, own.device_mesh, own.placements, src_data_rank=None)
    return whole
