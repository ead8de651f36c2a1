"""Two processes against one: the gather, its gradient, and the contrast with global negatives."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from hicmae import distributed
from hicmae.accumulation import losses_in_parts
from hicmae.losses import contrastive
from hicmae.pretraining import HiCMAE, PretrainInput
from tests.tiny_model import pretraining_batch, pretraining_model

RANKS, BATCH, TAPS = 2, 3, 2
# Two and one clips with both modalities: the ranks' own means would weigh them differently.
BOTH = torch.tensor([True, False, True, False, False, True])


def projections() -> torch.nn.ModuleList:
    torch.manual_seed(0)
    return torch.nn.ModuleList(torch.nn.Linear(5, 4) for _ in range(2 * TAPS))


# Two views of a clip and another clip on each rank: a rank counts its own clips.
VIEWS = torch.tensor([0, 0, 1, 0, 1, 1])


def contrast(
    model: torch.nn.ModuleList, present: torch.Tensor | None, rows: slice, clip_of: torch.Tensor | None = None
):
    inputs = torch.randn(2, RANKS * BATCH, 5, generator=torch.Generator().manual_seed(1))[:, rows]
    features = [model[i](inputs[i % 2]) for i in range(2 * TAPS)]
    present = None if present is None else present[rows]
    return contrastive(features[0::2], features[1::2], negatives="global", present=present, clip_of=clip_of)


def joint_batch(model, rows: slice):
    """HiCMAE's output for some rows of a batch of six, all with both modalities."""
    return model(*(x[rows] for x in pretraining_batch(RANKS * BATCH)))


class InParts(torch.nn.Module):
    """The joint batch's loss, this rank's clips in parts of two and one."""

    def __init__(self, model: HiCMAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: slice) -> torch.Tensor:
        video, log_mel, video_visible, audio_visible = (x[rows] for x in pretraining_batch(RANKS * BATCH))
        clips = PretrainInput(
            video=video, log_mel=log_mel, video_visible=video_visible, audio_visible=audio_visible
        )  # fmt: skip
        return losses_in_parts(self.model, clips, 2).loss


def average(values: list[torch.Tensor]) -> list[torch.Tensor]:
    """Mean over ranks, as data-parallel training takes it of gradients."""
    for value in values:
        dist.all_reduce(value)
    return [value / RANKS for value in values]


def work(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS, timeout=timedelta(seconds=60)
    )
    rows = slice(rank * BATCH, (rank + 1) * BATCH)
    result: dict[str, object] = {}

    local = torch.full((2, 3), float(rank + 1), requires_grad=True)
    everyone = distributed.gather(local)
    (everyone * torch.arange(12.0).reshape(2, 2, 3) * (rank + 1)).sum().backward()
    result["gather"], result["gather_gradient"] = everyone.detach(), local.grad

    for name, present, clip_of in (("all", None, None), ("some", BOTH, None), ("views", None, VIEWS[rows])):
        model = projections()
        loss, logits = contrast(model, present, rows, clip_of)
        loss.backward()
        result[f"{name}_logits"] = [x.detach() for x in logits]
        result[name] = average([loss.detach(), *(p.grad for p in model.parameters())])

    # A rank that says nothing about its own clips still respects what the other says of its clips.
    result["mixed"] = contrast(projections(), BOTH if rank else None, rows)[0].detach()

    calls = []
    gather = dist.all_gather
    dist.all_gather = lambda pieces, tensor: calls.append(tensor.numel()) or gather(pieces, tensor)
    contrast(projections(), BOTH, rows, VIEWS[rows])
    dist.all_gather = gather
    result["gathered_values"] = calls

    model = pretraining_model(negatives="global", contrastive_weight=1.0)
    output = joint_batch(model, rows)
    output.loss.backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    result["model"] = average([output.loss.detach(), *gradients])

    model = pretraining_model(negatives="global", contrastive_weight=1.0)
    parallel = torch.nn.parallel.DistributedDataParallel(InParts(model))
    with parallel.no_sync():  # accumulated batches: the first is not exchanged
        (parallel(rows) / 2).backward()
    loss = parallel(rows)
    (loss / 2).backward()
    # Data-parallel training has averaged the gradients already.
    result["parts"] = [*average([loss.detach()]), *(p.grad for p in model.parameters() if p.requires_grad)]

    torch.save(result, Path(folder) / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.start_processes(work, args=(str(folder),), nprocs=RANKS, start_method="spawn")
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(RANKS)]


def assert_same(ours, expected, bound=1e-6):
    """Per tensor: largest difference over the largest value."""
    assert len(ours) == len(expected)
    for got, want in zip(ours, expected, strict=True):
        assert (got - want).abs().max() <= bound * want.abs().max()


def test_one_process_gathers_itself():
    local = torch.randn(2, 3)
    assert distributed.world_size() == 1
    assert torch.equal(distributed.gather(local), local[None])


def test_gather_stacks_in_rank_order(ranks):
    for result in ranks:
        assert torch.equal(result["gather"], torch.stack([torch.full((2, 3), 1.0), torch.full((2, 3), 2.0)]))


def test_gradients_of_all_ranks_losses_reach_the_owner(ranks):
    for rank, result in enumerate(ranks):
        assert torch.equal(result["gather_gradient"], 3 * torch.arange(12.0).reshape(2, 2, 3)[rank])


@pytest.mark.parametrize("name", ["all", "some", "views"])
def test_global_negatives_equal_one_process_with_the_joint_batch(ranks, name):
    model = projections()
    clip_of = VIEWS + torch.tensor([0, 0, 0, 2, 2, 2]) if name == "views" else None
    loss, logits = contrast(model, BOTH if name == "some" else None, slice(None), clip_of)
    loss.backward()
    for result in ranks:
        assert_same(result[name], [loss.detach(), *(p.grad for p in model.parameters())])
    for rank, result in enumerate(ranks):
        rows = slice(rank * BATCH, (rank + 1) * BATCH)
        torch.testing.assert_close(result[f"{name}_logits"], [x[rows].detach() for x in logits])


def test_a_rank_without_a_mask_of_its_own_respects_the_others(ranks):
    present = torch.cat([torch.ones(BATCH, dtype=torch.bool), BOTH[BATCH:]])
    expected, _ = contrast(projections(), present, slice(None))
    assert sum(result["mixed"] for result in ranks).item() / RANKS == pytest.approx(expected.item(), abs=1e-6)


def test_one_gather_for_all_taps_and_both_modalities(ranks):
    for result in ranks:
        # the features of all taps at once, and who is present
        assert sorted(result["gathered_values"]) == [BATCH, 2 * TAPS * BATCH * 4]


@pytest.mark.parametrize("how", ["model", "parts"])
def test_the_model_on_two_processes_equals_one_with_the_joint_batch(ranks, how):
    model = pretraining_model(negatives="global", contrastive_weight=1.0)
    loss = joint_batch(model, slice(None)).loss
    loss.backward()
    expected = [loss.detach(), *(p.grad for p in model.parameters() if p.requires_grad)]
    for result in ranks:
        assert_same(result[how], expected, bound=1e-5)
