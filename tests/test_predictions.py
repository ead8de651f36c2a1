"""One prediction a clip, whatever the batches and the processes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from hicmae.predictions import ClipOutputs, SegmentOutputs

CLIPS, SEGMENTS, OUTPUTS = 7, 2, 3
UNREADABLE = ((2, 1), (5, 0), (5, 1))  # (clip, segment): one of two, and both
RANKS = 2


def evaluate(batch_size: int, *, rank: int = 0, ranks: int = 1, repeat: bool = False) -> ClipOutputs:
    """As an ``EvaluationLoader`` hands out batches: contiguous shares, the last ones filled up, with rows that do not
    count or, to ``repeat``, with the first rows again, as a sampler that makes shares even does."""
    items = [(clip, segment) for clip in range(CLIPS) for segment in range(SEGMENTS)]
    batches = -(-len(items) // (ranks * batch_size))
    share = items[rank * batches * batch_size : (rank + 1) * batches * batch_size]
    missing = batches * batch_size - len(share)
    share += (items * missing)[:missing] if repeat else [(-1, 0)] * missing
    values = torch.randn(CLIPS * SEGMENTS, OUTPUTS, generator=torch.Generator().manual_seed(0))
    collected = SegmentOutputs()
    for start in range(0, len(share), batch_size):
        rows = share[start : start + batch_size]
        collected.add(
            torch.tensor([clip for clip, _ in rows]),
            torch.tensor([segment for _, segment in rows]),
            torch.tensor([clip >= 0 and (clip, segment) not in UNREADABLE for clip, segment in rows]),
            torch.stack(
                [values[clip * SEGMENTS + segment] if clip >= 0 else values[0] * 1e9 for clip, segment in rows]
            ),
        )
    return collected.gather()


def assert_same(ours: ClipOutputs, expected: ClipOutputs) -> None:
    for name in ("index", "outputs", "segments"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(expected, name), strict=True)


def test_segments_are_averaged_and_padding_left_out() -> None:
    result = evaluate(4)
    values = torch.randn(CLIPS * SEGMENTS, OUTPUTS, generator=torch.Generator().manual_seed(0)).double()
    by_clip = values.view(CLIPS, SEGMENTS, OUTPUTS)
    assert result.index.tolist() == [0, 1, 2, 3, 4, 6]
    assert result.segments.tolist() == [2, 2, 1, 2, 2, 2]
    np.testing.assert_allclose(result.outputs[0], by_clip[0].mean(dim=0))
    np.testing.assert_array_equal(result.outputs[2], by_clip[2, 0])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 16])
def test_batch_size_changes_no_bit(batch_size: int) -> None:
    assert_same(evaluate(batch_size), evaluate(4))


def test_a_row_that_comes_twice_counts_once() -> None:
    collected = SegmentOutputs()
    one, value = torch.tensor([0, 0, 0]), torch.tensor([[1.0], [1.0], [4.0]])
    collected.add(one, torch.tensor([0, 0, 1]), torch.ones(3, dtype=torch.bool), value)
    assert collected.gather().outputs.tolist() == [[2.5]]


def test_all_rows_invalid() -> None:
    collected = SegmentOutputs()
    collected.add(torch.tensor([3]), torch.tensor([0]), torch.tensor([False]), torch.ones(1, 2))
    assert len(collected.gather().index) == 0


def test_nothing_evaluated() -> None:
    with pytest.raises(ValueError, match="no batch"):
        SegmentOutputs().gather()


def work(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS, timeout=timedelta(seconds=60)
    )
    for batch_size in (1, 3, 4):  # with 4, one process has 8 rows and the other 6
        result = evaluate(batch_size, rank=rank, ranks=RANKS)
        np.savez(Path(folder) / f"{rank}-{batch_size}.npz", **vars(result))
        repeated = evaluate(batch_size, rank=rank, ranks=RANKS, repeat=True)
        np.savez(Path(folder) / f"{rank}-{batch_size}-repeated.npz", **vars(repeated))
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_with_uneven_shares_equal_one(tmp_path: Path) -> None:
    mp.start_processes(work, args=(str(tmp_path),), nprocs=RANKS, start_method="spawn")
    for rank in range(RANKS):
        for path in tmp_path.glob(f"{rank}-*.npz"):
            with np.load(path) as found:
                assert_same(ClipOutputs(**found), evaluate(4))
    assert len(list(tmp_path.glob("*.npz"))) == RANKS * 3 * 2
