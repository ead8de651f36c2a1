from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from hicmae.data.augment import PretrainingDraws
from hicmae.data.manifest import read_manifest, write_manifest
from hicmae.data.shard_source import ShardSource
from hicmae.data.shard_writer import write_shards
from hicmae.data.source import ManifestSource
from tests.corpus import make_corpus
from tests.test_stream import MODEL, assert_same, damaged, ids, make_stream, shards

__all__ = ["damaged", "shards"]  # fixtures


# ---------------------------------------------------------------- several windows of a clip


@pytest.mark.parametrize("workers", [0, 3])
def test_windows_of_a_clip_come_in_batches_in_a_row(damaged: ManifestSource, workers: int) -> None:
    settings = {"batch_size": 4, "max_skip_fraction": 1.0}
    single = list(make_stream(damaged, **settings))
    stream = make_stream(damaged, windows_per_clip=3, num_workers=workers, **settings)
    batches = list(stream)
    stream.close()
    assert len(batches) == len(stream) == 3 * len(single)
    assert_same(batches[::3], single)  # the first window is that of a stream of one
    for first, second, third in zip(batches[::3], batches[1::3], batches[2::3], strict=True):
        assert first.clip_ids == second.clip_ids == third.clip_ids
        assert not torch.equal(first.gain, second.gain)
        assert not torch.equal(second.crop_box, third.crop_box)


# between groups, and within one
@pytest.mark.parametrize(("workers", "taken"), [(0, 3), (0, 4), (0, 5), (1, 4), (3, 4)])
def test_resume_within_the_windows_of_a_clip(damaged: ManifestSource, workers: int, taken: int) -> None:
    settings = {"batch_size": 4, "max_skip_fraction": 1.0, "windows_per_clip": 3, "num_workers": workers}
    whole = list(make_stream(damaged, **settings | {"num_workers": 0}))
    stopped = make_stream(damaged, **settings)
    first = list(itertools.islice(stopped, taken))
    resumed = make_stream(damaged, **settings)
    resumed.load_state_dict(stopped.state_dict())
    assert_same(first + list(resumed), whole)
    stopped.close()
    resumed.close()


# ---------------------------------------------------------------- several views of a clip

VIEWS: dict[str, Any] = {
    "batch_size": 4,
    "max_skip_fraction": 1.0,
    "windows_per_clip": 2,
    "views_per_clip": 2,
    "draws": PretrainingDraws(model=MODEL, video_decode_ratio=0.5, audio_decode_ratio=0.5),
}


@pytest.mark.parametrize(("workers", "taken"), [(0, 3), (1, 4)])
def test_resume_with_views_and_windows_and_less_decoded(damaged: ManifestSource, workers: int, taken: int) -> None:
    whole = list(make_stream(damaged, **VIEWS))
    assert all(batch.views == 2 and len(batch.gain) == 8 and batch.video_decoded is not None for batch in whole)
    plain = VIEWS | {"views_per_clip": 1, "draws": PretrainingDraws(model=MODEL)}
    assert [batch.clip_ids for batch in whole] == [batch.clip_ids for batch in make_stream(damaged, **plain)]
    stopped = make_stream(damaged, num_workers=workers, **VIEWS)
    first = list(itertools.islice(stopped, taken))
    resumed = make_stream(damaged, num_workers=workers, **VIEWS)
    resumed.load_state_dict(stopped.state_dict())
    assert_same(first + list(resumed), whole)
    stopped.close()
    resumed.close()


def test_a_place_is_not_taken_over_from_a_run_with_other_views(shards: Path) -> None:
    source = ShardSource(shards)
    state = make_stream(source, views_per_clip=2).state_dict()
    with pytest.raises(ValueError, match="views_per_clip was 2 and is 1"):
        make_stream(source).load_state_dict(state)
    del state["views_per_clip"]  # as it was saved before there were views
    make_stream(source).load_state_dict(state)
    with pytest.raises(ValueError, match="views_per_clip was 1 and is 2"):
        make_stream(source, views_per_clip=2).load_state_dict(state)


def test_views_of_a_mixture_come_with_their_clips_on_every_rank(two_sets: ShardSource) -> None:
    settings: dict[str, Any] = {**MIXTURE, "sampling": "resampled", "shuffle_shards": 8, "world_size": 2}
    for rank in (0, 1):
        alone = make_stream(two_sets, rank=rank, **settings)
        for batch, single in zip(make_stream(two_sets, rank=rank, views_per_clip=2, **settings), alone, strict=True):
            rows = batch.each_view()
            assert rows.clip_ids[::2] == rows.clip_ids[1::2] == single.clip_ids
            assert torch.equal(rows.gain[::2], single.gain)
            assert not torch.isclose(rows.gain[::2], rows.gain[1::2]).any()


# ---------------------------------------------------------------- another joint batch


@pytest.mark.parametrize(
    ("before", "after", "taken", "workers"),
    [(4, 2, 2, 0), (4, 2, 2, 1), (2, 4, 3, 0), (2, 4, 3, 3), (4, 3, 1, 0), (3, 5, 2, 0), (2, 22, 1, 0)],
)
def test_another_joint_batch_goes_on_with_the_rest(
    shards: Path, before: int, after: int, taken: int, workers: int
) -> None:
    source = ShardSource(shards)
    rest = (22 - taken * before) // after
    stopped = make_stream(source, batch_size=before)
    order = ids(list(make_stream(source, batch_size=1)))
    assert ids(list(itertools.islice(stopped, taken))) == order[: taken * before]
    resumed = make_stream(source, batch_size=after, num_workers=workers)
    resumed.load_state_dict(stopped.state_dict())
    assert len(resumed) - resumed.batch == rest
    if rest:
        resumed.set_epoch(0)  # as a trainer does
        cut = list(itertools.islice(resumed, 1))
        again = make_stream(source, batch_size=after)  # stopped again within the part that was cut anew
        again.load_state_dict(resumed.state_dict())
        assert again.state_dict() == resumed.state_dict()
        cut += [batch for batch in again if again.epoch == 0]
        assert ids(cut) == order[taken * before :][: rest * after]
        resumed.load_state_dict(again.state_dict())
    assert resumed.batch == len(resumed)
    fresh = make_stream(source, batch_size=after)
    fresh.set_epoch(1)
    assert_same(list(resumed), list(fresh))  # the next epoch has nothing of it
    resumed.close()


def test_another_joint_batch_begins_no_group_of_windows_again(shards: Path) -> None:
    source = ShardSource(shards)
    order = ids(list(make_stream(source, batch_size=1)))
    stopped = make_stream(source, batch_size=4, windows_per_clip=3)
    list(itertools.islice(stopped, 4))  # one group and a window of the next
    resumed = make_stream(source, batch_size=2, windows_per_clip=3)
    resumed.load_state_dict(stopped.state_dict())
    assert ids(list(resumed)[::3]) == order[8:22]


def test_another_joint_batch_is_reported_in_numbers(shards: Path, caplog: pytest.LogCaptureFixture) -> None:
    stopped = make_stream(ShardSource(shards), batch_size=2, rank=1, world_size=2)
    list(itertools.islice(stopped, 2))
    for rank in range(3):
        resumed = make_stream(ShardSource(shards), batch_size=2, rank=rank, world_size=3)
        resumed.load_state_dict(stopped.state_dict())
    assert caplog.text.count("the saved run had joint batches of 4 clips (2 ranks x 2), this one has 6 (3 x 2)") == 1
    assert (
        "Epoch 0 goes on after 8 of its 22 clips: the rest makes 2 joint batches, and the last 2 clips are left out"
        in (caplog.text)
    )


# ---------------------------------------------------------------- mixtures and endless streams


MIXTURE = {"weights": (1.0, 3.0), "epoch_clips": 40}
ENDLESS = {"sampling": "resampled", "shuffle_shards": 8, "epoch_clips": 50}
BOTH = {"weights": (1.0, 1.0), "sampling": "resampled", "shuffle_shards": 8}


@pytest.mark.parametrize(("settings", "workers"), [(MIXTURE, 0), (MIXTURE, 1), (ENDLESS, 0), (ENDLESS, 3), (BOTH, 0)])
def test_mixtures_resume_exactly_with_any_number_of_workers(
    two_sets: ShardSource, settings: dict[str, Any], workers: int
) -> None:
    settings = settings | {"batch_size": 2, "world_size": 2, "rank": 1}
    alone = make_stream(two_sets, **settings)
    whole = list(alone) + list(alone)
    assert len(whole) == 2 * len(alone) == 2 * (alone.order.clips // 4)
    stopped = make_stream(two_sets, num_workers=workers, **settings)
    first = list(stopped) + list(itertools.islice(stopped, 2))
    resumed = make_stream(two_sets, num_workers=workers, **settings)
    resumed.load_state_dict(stopped.state_dict())
    assert_same(first + list(resumed), whole)
    stopped.close()
    resumed.close()


def test_joint_batches_of_a_mixture_hold_no_clip_twice(two_sets: ShardSource) -> None:
    settings: dict[str, Any] = {"weights": (1.0, 3.0), "epoch_clips": 80, "world_size": 2}
    left, right = (list(make_stream(two_sets, rank=rank, **settings)) for rank in (0, 1))
    for a, b in zip(left, right, strict=True):
        assert len(set(a.clip_ids + b.clip_ids)) == 4
    with pytest.raises(ValueError, match=r"data set 2 \(24 clips\): up to \d+ of it come in a joint batch of 16"):
        make_stream(two_sets, weights=(1.0, 3.0), batch_size=16)


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory: pytest.TempPathFactory) -> ShardSource:
    """Two folders of shards: 18 and 24 clips."""
    folder = tmp_path_factory.mktemp("sets")
    whole = make_corpus(folder / "corpus", 42)
    parts = {"first": whole.clips[:18], "second": whole.clips[18:]}
    for name, clips in parts.items():
        manifest = read_manifest(write_manifest(folder / f"{name}.csv", clips))
        write_shards(manifest, folder / name, shard_mb=0.1)
    return ShardSource([folder / name for name in parts])
