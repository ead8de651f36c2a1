"""What ranks send to each other in a pre-training step: by formula, and counted in a run of two processes.

``benchmarks.scaling`` estimates from the one and checks it by the other.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from hicmae.config import ModelConfig
from hicmae.layers import Block
from hicmae.masking import random_mask, tube_mask
from hicmae.pretraining import HiCMAE, Objective
from hicmae.training.sharding import shard

Kind = Literal["all_reduce", "all_gather", "reduce_scatter", "other"]
Way = Literal["ddp", "ddp_bf16", "sharded", "sharded_bf16", "sharded_bf16_kept"]
WAYS: dict[Way, str] = {
    "ddp": "DDP",
    "ddp_bf16": "DDP, gradients as bfloat16",
    "sharded": "sharded",
    "sharded_bf16": "sharded, gathered as bfloat16",
    "sharded_bf16_kept": "the same, kept until the backward pass",
}
RANKS = 2
_FIRST_BUCKET, _BUCKET = 2**20, 25 * 2**20  # bytes of gradients that DDP sums at a time


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """One kind of message of a step, seen from one rank."""

    kind: Kind
    what: str
    """gradients, weights or features."""
    calls: int
    """Collectives of this kind."""
    bytes: int
    """The whole tensors that are summed, gathered or scattered, over all calls."""

    def sent(self, ranks: int) -> float:
        """Bytes that each rank sends if the ranks form a ring."""
        return self.bytes * (ranks - 1) / ranks * (2 if self.kind == "all_reduce" else 1)


def expected(model: HiCMAE, way: Way, *, ranks: int, batch: int) -> list[Traffic]:
    """What a step with global negatives sends, by formula.

    Args:
        model: may lie on the ``meta`` device.
        way: how the model is trained on several ranks.
        ranks: how many.
        batch: clips a rank.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    found: list[Traffic] = []
    if way.startswith("ddp"):
        size = sum(p.numel() for p in trained) * 4
        # Whole parameters go into a bucket until it is full, so their number is one of thereabouts.
        buckets = 1 + -(-max(0, size - _FIRST_BUCKET) // _BUCKET)
        found.append(Traffic(kind="all_reduce", what="gradients", calls=buckets, bytes=size // (1 + ("bf16" in way))))
    else:
        blocks = [module for module in model.modules() if isinstance(module, Block)]
        in_blocks = {id(p) for block in blocks for p in block.parameters()}
        rest = [p for p in model.parameters() if id(p) not in in_blocks]
        passes = 1 if way.endswith("kept") else 2
        values = sum(passes * _padded(block.parameters(), ranks) for block in blocks) + _padded(rest, ranks)
        found.append(
            Traffic(kind="all_gather", what="weights", calls=passes * len(blocks) + 1,
                    bytes=values * (2 if "bf16" in way else 4)),
        )  # fmt: skip
        found.append(
            Traffic(kind="reduce_scatter", what="gradients", calls=len(blocks) + 1, bytes=4 * _padded(trained, ranks))
        )
    features = 2 * len(model.config.taps) * ranks * batch * model.config.width * 4
    found.append(Traffic(kind="all_gather", what="features", calls=2, bytes=features + ranks * batch * 4))
    found.append(Traffic(kind="reduce_scatter", what="features", calls=1, bytes=features))
    return found


def _padded(parameters: Any, ranks: int) -> int:
    """Values of parameters whose first axis is filled up to equal shares."""
    return sum(-(-p.shape[0] // ranks) * ranks * (p.numel() // p.shape[0]) for p in parameters)


# ---------------------------------------------------------------- counted


class Collectives(TorchDispatchMode):
    """Counts the collectives of what runs within it, on a processor."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[Kind, int]] = []
        """Kind and bytes of each."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            name = func.name().removeprefix("c10d::")
            kinds: dict[str, tuple[Kind, int]] = {
                "allreduce_": ("all_reduce", 0), "allgather_": ("all_gather", 0), "_allgather_base_": ("all_gather", 0),
                "_reduce_scatter_base_": ("reduce_scatter", 1),
            }  # fmt: skip
            kind, whole = kinds.get(name, ("other", 0))
            self.found.append((kind, _bytes(args[whole])))
        return func(*args, **(kwargs or {}))


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(_bytes(one) for one in value) if isinstance(value, (list, tuple)) else 0


def counted(config: ModelConfig, ways: Sequence[Way], *, batch: int) -> dict[Way, list[Traffic]]:
    """What one step sends in two processes of this machine, of which each has ``batch`` clips."""
    with tempfile.TemporaryDirectory() as folder:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        arguments = (config, list(ways), batch, port, folder)
        mp.start_processes(_rank, args=arguments, nprocs=RANKS, start_method="spawn")
        result = json.loads((Path(folder) / "found.json").read_text())
    return {way: [Traffic(**one) for one in found] for way, found in result.items()}


def _rank(rank: int, config: ModelConfig, ways: list[Way], batch: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=RANKS)
    result = {way: [asdict(one) for one in found] for way, (found, _) in steps_of_rank(config, ways, batch).items()}
    if rank == 0:
        (Path(folder) / "found.json").write_text(json.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


def steps_of_rank(config: ModelConfig, ways: Sequence[Way], batch: int) -> dict[Way, tuple[list[Traffic], float]]:
    """What a step sends, and its loss, in one of ``RANKS`` processes that have met and all call this."""
    inputs = _inputs(config, batch)
    result: dict[Way, tuple[list[Traffic], float]] = {}
    for way in ways:
        torch.manual_seed(0)
        model = HiCMAE(config, objective=Objective(negatives="global"))
        step = _wrapped(model, way)
        for _ in range(3):  # DDP arranges its buckets anew after the first, and says so in the second
            with Collectives() as counter:
                loss = step(*inputs, has_video=torch.ones(batch, dtype=torch.bool)).loss
                loss.backward()
        result[way] = (_named(counter.found, config, batch), loss.item())
    return result


def _wrapped(model: HiCMAE, way: Way) -> Callable[..., Any]:
    if way.startswith("sharded"):
        shard(model, init_device_mesh("cpu", (RANKS,)), reshard_after_forward=not way.endswith("kept"),
              gather_bf16="bf16" in way)  # fmt: skip
        return _autocast(model) if "bf16" in way else model
    ddp = DistributedDataParallel(model, gradient_as_bucket_view=True, broadcast_buffers=False)
    if way == "ddp_bf16":
        ddp.register_comm_hook(None, bf16_compress_hook)
    return ddp


def _autocast(model: nn.Module) -> Callable[..., Any]:
    def step(*args: Any, **settings: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return model(*args, **settings)

    return step


def _inputs(config: ModelConfig, batch: int) -> tuple[Tensor, ...]:
    rng, side = np.random.default_rng(0), config.image_size
    video = torch.randn(batch, 3, config.num_frames, side, side)
    log_mel = torch.randn(batch, 1, config.audio_frames, config.mel_bins)
    seen = [np.stack([tube_mask(rng, config.video_grid, 0.9) for _ in range(batch)]),
            np.stack([random_mask(rng, config.audio_tokens, 0.8) for _ in range(batch)])]  # fmt: skip
    return video, log_mel, *(torch.from_numpy(one) for one in seen)


def _named(found: list[tuple[Kind, int]], config: ModelConfig, batch: int) -> list[Traffic]:
    """Collectives of a kind taken together, those of the features apart, by their exact sizes."""
    features = 2 * len(config.taps) * RANKS * batch * config.width * 4
    groups: dict[tuple[Kind, str], list[int]] = {}
    for kind, size in found:
        weights = {"all_reduce": "gradients", "all_gather": "weights", "reduce_scatter": "gradients"}.get(kind, "?")
        what = "features" if size in (features, RANKS * batch * 4) else weights
        groups.setdefault((kind, what), []).append(size)
    return [Traffic(kind=kind, what=what, calls=len(sizes), bytes=sum(sizes)) for (kind, what), sizes in groups.items()]
