"""Going on with another joint batch, under the real trainer: what is seen, when epochs end, where the schedule is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hicmae.training.optim import OptimizerConfig, warmup_cosine
from tests.corpus import make_corpus
from tests.record_stream import read, record

CLIPS, EPOCHS = 23, 3
OPTIMIZER = OptimizerConfig(warmup_epochs=1, lr_per_256=2.56, min_lr_per_256=0.0256)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("resized"), CLIPS).path


def steps_per_epoch(joint: int, accumulate: int = 1) -> int:
    return -(-(CLIPS // joint) // accumulate)


def expected_lr(step: int, *, joint: int, accumulate: int = 1) -> float:
    """The rate of a step in a run that has this joint batch throughout."""
    per_epoch = steps_per_epoch(joint, accumulate)
    return warmup_cosine(
        step,
        peak=OPTIMIZER.peak_lr(joint * accumulate),
        floor=OPTIMIZER.floor_lr(joint * accumulate),
        warmup_steps=per_epoch,
        total_steps=per_epoch * EPOCHS,
    )


def run(corpus: Path, folder: Path, **settings: Any) -> list[dict[str, Any]]:
    return record(corpus, folder, optimizer=OPTIMIZER, max_epochs=EPOCHS, **settings)


@pytest.mark.parametrize("stop_after", [1, 5, 8])  # 4 clips a batch: within an epoch, at its end, within the next
@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 4), (4, 3), (4, 20)])
def test_the_rest_of_the_epoch_is_seen_once(
    corpus: Path, tmp_path: Path, before: int, after: int, stop_after: int
) -> None:
    first = run(corpus, tmp_path, batch_size=before, stop_after=stop_after)
    second = run(corpus, tmp_path, batch_size=after, resume=True)
    epoch = first[-1]["epoch"]
    done = [line for line in first if line["epoch"] == epoch]
    seen = Counter(clip for line in [*done, *second] if line["epoch"] == epoch for clip in line["clips"])
    assert set(seen.values()) == {1}
    handed_out = len(done) * before
    finished = len(done) == CLIPS // before
    rest = 0 if finished else (CLIPS - handed_out) // after
    assert len(seen) == handed_out + rest * after  # all but the remainder, less than one of the new joint batches
    # the epochs after it have the new length, each clip once
    lengths = Counter(line["epoch"] for line in second)
    assert lengths == {e: CLIPS // after if e > epoch else rest for e in range(epoch + (not rest), EPOCHS)}
    for later in range(epoch + 1, EPOCHS):
        assert set(Counter(c for line in second if line["epoch"] == later for c in line["clips"]).values()) == {1}
    # steps go on counting, and the last batch of an epoch has the number that it always has
    assert [line["step"] for line in second] == list(range(len(first), len(first) + len(second)))
    assert second[-1]["batch"] == CLIPS // after - 1


@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 4), (4, 3)])
@pytest.mark.parametrize("stop_after", [5, 6])
def test_the_schedule_follows_the_epochs(
    corpus: Path, tmp_path: Path, before: int, after: int, stop_after: int
) -> None:
    first = run(corpus, tmp_path, batch_size=before, stop_after=stop_after)
    for line in first:
        assert line["lr"] == pytest.approx(expected_lr(line["step"], joint=before))
    second = run(corpus, tmp_path, batch_size=after, resume=True)
    for line in second:
        step = line["epoch"] * steps_per_epoch(after) + line["batch"]
        assert line["lr"] == pytest.approx(expected_lr(step, joint=after)), line
    assert second[-1]["epoch"] * steps_per_epoch(after) + second[-1]["batch"] == steps_per_epoch(after) * EPOCHS - 1


def test_accumulation_makes_up_for_fewer_ranks(corpus: Path, tmp_path: Path) -> None:
    first = run(corpus, tmp_path, batch_size=4, stop_after=7)
    second = run(corpus, tmp_path, batch_size=2, accumulate=2, resume=True)
    whole = run(corpus, tmp_path / "whole", batch_size=4)
    order = {e: [c for line in whole if line["epoch"] == e for c in line["clips"]] for e in range(EPOCHS)}
    for epoch in (1, 2):
        seen = [c for line in [*first, *second] if line["epoch"] == epoch for c in line["clips"]]
        assert seen[: len(order[epoch])] == order[epoch]
    for line in second:  # 11 batches make 6 steps: the last of an epoch has one batch
        step = line["epoch"] * 6 + line["batch"] // 2
        assert line["lr"] == pytest.approx(expected_lr(step, joint=2, accumulate=2)), line


def test_it_is_resized_again(corpus: Path, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    for batch_size in (4, 3, 2):
        seen += run(corpus, tmp_path, batch_size=batch_size, stop_after=2, resume=bool(seen))
    seen += run(corpus, tmp_path, batch_size=2, resume=True)  # and from within the part cut anew, the same size
    first = Counter(clip for line in seen if line["epoch"] == 0 for clip in line["clips"])
    assert set(first.values()) == {1}
    assert len(first) == 8 + 6 + (CLIPS - 14) // 2 * 2


def test_it_is_said(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(corpus, tmp_path, batch_size=4, stop_after=2)
    run(corpus, tmp_path, batch_size=3, resume=True)
    assert (
        "the saved run had joint batches of 4 clips (1 ranks x 4), this one has 3 (1 x 3). Epoch 0 goes on after 8 of "
        "its 23 clips: the rest makes 5 joint batches, and the last 0 clips are left out"
    ) in caplog.text
    assert "a step has 3 clips now, and an epoch 7 steps; the saved run had 4 and 5" in caplog.text


@pytest.mark.slow
def test_two_processes_stop_and_one_goes_on(corpus: Path, tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.record_stream", str(corpus), str(tmp_path), "--batch_size=2",
               f"--max_epochs={EPOCHS}"]  # fmt: skip
    subprocess.run([*command, "--ranks=2", "--stop_after=8"], env=environment, check=True, timeout=120)
    subprocess.run([*command, "--ranks=1", "--resume"], env=environment, check=True, timeout=120)
    first = [read(tmp_path / f"part0_rank{rank}.jsonl") for rank in (0, 1)]
    second = read(tmp_path / "part1_rank0.jsonl")
    assert [len(lines) for lines in first] == [8, 8]
    seen = Counter(clip for line in [*first[0], *first[1], *second] if line["epoch"] == 1 for clip in line["clips"])
    handed_out = 3 * 4
    assert set(seen.values()) == {1}
    assert len(seen) == handed_out + (CLIPS - handed_out) // 2 * 2
    assert Counter(line["epoch"] for line in second) == {1: (CLIPS - handed_out) // 2, 2: CLIPS // 2}
    # the order is the one of a single process that was never stopped
    whole = record(corpus, tmp_path / "whole", batch_size=4, max_epochs=2)
    order = [clip for line in whole if line["epoch"] == 1 for clip in line["clips"]]
    joint = [a["clips"] + b["clips"] for a, b in zip(*first, strict=True) if a["epoch"] == 1]
    own = [clip for clips in joint for clip in clips]
    own += [clip for line in second if line["epoch"] == 1 for clip in line["clips"]]
    assert own[: len(order)] == order
