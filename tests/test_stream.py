from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hicmae.config import InputSpec, ModelConfig
from hicmae.data.augment import PretrainingDraws, RecognitionDraws
from hicmae.data.batch import ClipBatch
from hicmae.data.epoch import OrderSettings
from hicmae.data.labels import LabelSpec
from hicmae.data.loader import LoaderSettings
from hicmae.data.manifest import read_manifest, write_manifest
from hicmae.data.shard_source import ShardSource
from hicmae.data.shard_writer import write_shards
from hicmae.data.skips import UnusableDataError
from hicmae.data.source import ManifestSource
from hicmae.data.stream import TrainStream
from tests.corpus import EMOTIONS, make_corpus

MODEL = ModelConfig.preset("micro", image_size=32, num_frames=4)
SPEC = InputSpec.for_model(MODEL)
CORRUPT = ("clip004", "clip011")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 clips in several shards."""
    folder = tmp_path_factory.mktemp("stream")
    write_shards(make_corpus(folder / "corpus", 22), folder / "shards", shard_mb=0.1)
    return folder / "shards"


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> ManifestSource:
    """22 clips as files, two of them cut short."""
    folder = tmp_path_factory.mktemp("damaged")
    return ManifestSource(make_corpus(folder, 22, corrupt=[int(name[-3:]) for name in CORRUPT]))


def make_stream(source: Any, **settings: Any) -> TrainStream:
    """A stream; settings of loader and order by their names."""
    all_settings: dict[str, Any] = {"spec": SPEC, "draws": PretrainingDraws(model=MODEL), "batch_size": 2, "seed": 7,
                                    "shuffle_shards": 2} | settings  # fmt: skip
    return TrainStream(
        source,
        loader=LoaderSettings(**{n: v for n, v in all_settings.items() if n in _fields(LoaderSettings)}),
        order=OrderSettings(**{n: v for n, v in all_settings.items() if n in _fields(OrderSettings)}),
        **{n: v for n, v in all_settings.items() if n not in _fields(LoaderSettings) | _fields(OrderSettings)},
    )


def _fields(settings: type) -> set[str]:
    return {field.name for field in fields(settings)}


def tensors(batch: ClipBatch) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in vars(batch).items():
        if isinstance(value, torch.Tensor):
            yield name, value
    yield from batch.labels.items()


def assert_same(left: list[ClipBatch], right: list[ClipBatch]) -> None:
    assert [batch.clip_ids for batch in left] == [batch.clip_ids for batch in right]
    for a, b in zip(left, right, strict=True):
        for (name, x), (_, y) in zip(tensors(a), tensors(b), strict=True):
            assert torch.equal(x, y), name
        assert a.skipped == b.skipped


def ids(batches: list[ClipBatch]) -> list[str]:
    return [name for batch in batches for name in batch.clip_ids]


def test_batches_have_the_promised_types_and_shapes(shards: Path) -> None:
    stream = make_stream(ShardSource(shards), batch_size=3)
    batch = next(iter(stream))
    time, rows, columns = MODEL.video_grid
    video_visible = time * (rows * columns - int(0.9 * rows * columns))
    expected: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
        "video": (torch.uint8, (3, 4, 32, 32, 3)),
        "waveform": (torch.int16, (3, SPEC.audio_samples)),
        "sound_samples": (torch.int64, (3,)),
        "has_video": (torch.bool, (3,)),
        "has_audio": (torch.bool, (3,)),
        "crop_box": (torch.float32, (3, 4)),
        "flip": (torch.bool, (3,)),
        "gain": (torch.float32, (3,)),
        "video_visible": (torch.int64, (3, video_visible)),
        "audio_visible": (torch.int64, (3, 26)),
        "index": (torch.int64, (3,)),
        "segment": (torch.int64, (3,)),
        "valid": (torch.bool, (3,)),
    }
    assert {name: (value.dtype, tuple(value.shape)) for name, value in tensors(batch)} == expected
    assert batch.has_video.all()
    assert batch.has_audio.all()
    assert batch.valid.all()
    assert not batch.flip.any()
    assert batch.video.float().std() > 1
    assert ((batch.gain > 0.5) & (batch.gain < 1.5)).all()
    assert len(set(batch.gain.tolist())) == 3
    assert [stream.source.info(i).clip_id for i in batch.index.tolist()] == batch.clip_ids


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_clip_comes_once_an_epoch_over_all_ranks(shards: Path, world_size: int) -> None:
    source = ShardSource(shards)
    streams = [make_stream(source, rank=rank, world_size=world_size) for rank in range(world_size)]
    seen = Counter(name for stream in streams for name in ids(list(stream)))
    assert set(seen.values()) == {1}
    assert len(seen) == 22 // (2 * world_size) * 2 * world_size
    assert len({len(stream) for stream in streams}) == 1


def test_epochs_differ_and_repeat_when_asked_for(shards: Path) -> None:
    stream = make_stream(ShardSource(shards))
    first, second = list(stream), list(stream)
    assert stream.epoch == 1
    assert ids(first) != ids(second)
    assert sorted(ids(first)) == sorted(ids(second))
    gain = {name: value for batch in first for name, value in zip(batch.clip_ids, batch.gain.tolist(), strict=True)}
    again = {name: value for batch in second for name, value in zip(batch.clip_ids, batch.gain.tolist(), strict=True)}
    assert all(gain[name] != again[name] for name in gain)
    stream.set_epoch(0)
    assert_same(list(stream), first)
    assert ids(list(make_stream(ShardSource(shards), seed=8))) != ids(first)


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing_and_persist_through_epochs(shards: Path, workers: int) -> None:
    source = ShardSource(shards)
    alone, helped = make_stream(source), make_stream(source, num_workers=workers)
    for _ in range(2):
        assert_same(list(alone), list(helped))
    iterator = helped._batches._loader._iterator  # held on to, as a garbage cycle would
    processes = iterator._workers
    assert len(processes) == workers
    helped.set_epoch(5)
    alone.set_epoch(5)
    assert_same(list(alone), list(helped))
    assert helped._batches._loader._iterator._workers == processes
    assert all(process.is_alive() for process in processes)
    helped.close()
    assert not any(process.is_alive() for process in processes)


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_goes_on_as_if_undisturbed(damaged: ManifestSource, workers: int) -> None:
    settings = {"world_size": 2, "rank": 1, "batch_size": 2, "max_skip_fraction": 1.0}
    undisturbed = make_stream(damaged, **settings)
    whole = list(undisturbed) + list(undisturbed)
    assert any(batch.skipped for batch in whole)

    stopped = make_stream(damaged, num_workers=workers, **settings)
    taken = []
    for batch in stopped:
        taken.append(batch)
        if len(taken) == 3:
            break
    state = stopped.state_dict()
    stopped.close()
    assert (state["epoch"], state["batch"]) == (0, 3)  # what workers prepared ahead does not count
    resumed = make_stream(damaged, num_workers=workers, **settings)
    resumed.load_state_dict(state)
    resumed.set_epoch(0)  # as a trainer does
    assert_same(taken + list(resumed) + list(resumed), whole)
    resumed.close()


def test_resume_at_the_end_of_an_epoch_goes_to_the_next(shards: Path) -> None:
    source = ShardSource(shards)
    stream = make_stream(source)
    list(stream)
    state = stream.state_dict()
    resumed = make_stream(source)
    resumed.load_state_dict(state)
    assert_same(list(resumed), list(stream))
    assert resumed.epoch == 1


def test_a_run_goes_on_with_another_number_of_ranks(shards: Path) -> None:
    source = ShardSource(shards)
    alone = make_stream(source, batch_size=4)
    batches = list(alone)
    resumed = [make_stream(source, batch_size=2, rank=rank, world_size=2) for rank in range(2)]
    first = make_stream(source, batch_size=4)
    next(iter(first))
    for stream in resumed:
        stream.load_state_dict(first.state_dict())
    for whole, left, right in zip(batches[1:], *resumed, strict=True):
        assert left.clip_ids + right.clip_ids == whole.clip_ids
        assert torch.equal(torch.cat([left.crop_box, right.crop_box]), whole.crop_box)


def test_an_abandoned_pass_leaves_no_trace_in_the_next(shards: Path) -> None:
    source = ShardSource(shards)
    stream = make_stream(source, num_workers=2)
    abandoned = iter(stream)
    next(abandoned)
    stream.set_epoch(1)
    fresh = make_stream(source)
    fresh.set_epoch(1)
    assert_same(list(stream), list(fresh))
    stream.close()


def test_two_passes_at_once_are_refused(shards: Path) -> None:
    stream = make_stream(ShardSource(shards))
    first = iter(stream)
    next(first)
    next(iter(stream))
    with pytest.raises(RuntimeError, match="this pass over the stream has ended"):
        next(first)


def test_another_stream_is_not_resumed(shards: Path, damaged: ManifestSource) -> None:
    state = make_stream(ShardSource(shards)).state_dict()
    with pytest.raises(ValueError, match=r"seed was 7 and is 8.*same data and settings"):
        make_stream(ShardSource(shards), seed=8).load_state_dict(state)
    with pytest.raises(ValueError, match="sampling was 'epoch' and is 'resampled'"):
        make_stream(ShardSource(shards), sampling="resampled").load_state_dict(state)
    with pytest.raises(ValueError, match="index was"):
        make_stream(damaged).load_state_dict(state)


def test_corrupt_clips_are_replaced_counted_and_named(
    damaged: ManifestSource, caplog: pytest.LogCaptureFixture
) -> None:
    stream = make_stream(damaged, batch_size=2, max_skip_fraction=0.2)
    with caplog.at_level(logging.WARNING):
        batches = list(stream)
    seen = Counter(ids(batches))
    assert not set(CORRUPT) & set(seen)
    assert sum(seen.values()) == 22
    assert stream.skipped == {"truncated": 2}
    assert stream.skipped_clips == dict.fromkeys(CORRUPT, "truncated")
    assert {skip.clip_id for batch in batches for skip in batch.skipped} == set(CORRUPT)
    for batch in batches:
        assert len(set(batch.clip_ids)) == len(batch)  # a clip twice in a batch would be its own negative
    for name in CORRUPT:
        assert f"skipped clip {name}" in caplog.text
    assert_same(batches, list(make_stream(damaged, batch_size=2, max_skip_fraction=0.2)))


def test_replacements_are_different_clips(tmp_path: Path) -> None:
    source = ManifestSource(make_corpus(tmp_path, 12, corrupt=range(0, 12, 2)))
    for seed in range(5):
        for batch in make_stream(source, batch_size=4, seed=seed, max_skip_fraction=1.0):
            assert len(set(batch.clip_ids)) == 4


def test_too_many_corrupt_clips_stop_the_job(damaged: ManifestSource, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"2 of \d+ clips were skipped \(truncated: 2\).*max_skip_fraction=0.05"):
        list(make_stream(damaged, max_skip_fraction=0.05))
    hopeless = ManifestSource(make_corpus(tmp_path, 4, text=range(4)))
    with pytest.raises(RuntimeError, match="nor could 2 clips tried in its place"):
        list(make_stream(hopeless, max_skip_fraction=1.0))


@pytest.mark.parametrize("workers", [0, 1])
def test_hopeless_data_ends_with_the_sentence_of_the_worker_alone(tmp_path: Path, workers: int) -> None:
    hopeless = ManifestSource(make_corpus(tmp_path, 4, text=range(4)))
    stream = make_stream(hopeless, num_workers=workers, max_skip_fraction=1.0)
    with pytest.raises(UnusableDataError, match=r"^[^\n]*nor could 2 clips tried in its place[^\n]*$"):
        list(stream)


def test_the_share_of_skips_is_of_clips_and_not_of_windows(damaged: ManifestSource) -> None:
    with pytest.raises(UnusableDataError, match=r"2 of \d+ clips were skipped"):
        list(make_stream(damaged, max_skip_fraction=0.05, windows_per_clip=4))
    list(make_stream(damaged, max_skip_fraction=0.1, windows_per_clip=4))


def test_a_shard_cut_in_half_is_counted_and_does_not_stop_the_job(
    shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = Path(shutil.copytree(shards, tmp_path / "shards"))
    tar = copy / "shard-000001.tar"
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    with caplog.at_level(logging.WARNING):
        stream = make_stream(ShardSource(copy), max_skip_fraction=0.0)
        batches = list(stream)
    assert len(batches) == 11
    assert set(stream.skipped) == {"shard_truncated"}
    assert 0 < stream.skipped["shard_truncated"] < ShardSource(shards).group_sizes[1]
    assert len(caplog.records) == 1


def test_numbers_are_named_where_there_are_too_few_clips_or_too_many_workers(shards: Path) -> None:
    source = ShardSource(shards)
    with pytest.raises(ValueError, match="22 clips are too few: 2 ranks with batches of 12 need at least 24"):
        make_stream(source, batch_size=12, world_size=2)
    with pytest.raises(ValueError, match=r"num_workers=6 are more than the 5 batches.*at most 5"):
        make_stream(source, batch_size=4, num_workers=6)
    for settings in ({"batch_size": 0}, {"num_workers": -1}, {"shuffle_shards": 0}, {"rank": 1}):
        with pytest.raises(ValueError, match="must"):
            make_stream(source, **settings)
    with pytest.raises(ValueError, match="between 0 and 1"):
        make_stream(source, max_skip_fraction=2)


def test_recognition_gives_labels_and_flips(shards: Path) -> None:
    labels = LabelSpec(classes={"emotion": EMOTIONS}, dimensions={"valence": (0, 1)})
    stream = make_stream(ShardSource(shards), draws=RecognitionDraws(image_size=32), labels=labels, batch_size=11)
    batches = list(stream)
    flips = torch.cat([batch.flip for batch in batches])
    assert 0 < flips.sum() < len(flips)
    for batch in batches:
        numbers = [int(name[-3:]) for name in batch.clip_ids]
        assert batch.labels["emotion"].tolist() == [number % 3 for number in numbers]
        assert torch.allclose(batch.labels["valence"], torch.tensor(numbers) / 22)
        assert batch.video_visible is None
        assert (batch.gain == 1).all()


def test_an_unknown_label_ends_it_before_the_first_batch(shards: Path) -> None:
    with pytest.raises(ValueError, match=r"7 of 22 clips lack a usable label\n.*'clip\d+': emotion is 'neutral'"):
        make_stream(ShardSource(shards), labels=LabelSpec(classes={"emotion": EMOTIONS[:2]}))


def test_waiting_is_measured(shards: Path) -> None:
    stream = make_stream(ShardSource(shards))
    assert stream.wait_seconds == 0
    batches = iter(stream)
    next(batches)
    first = stream.wait_seconds
    assert first > 0
    next(batches)
    assert stream.wait_seconds > first


def test_clips_without_a_picture_are_skipped_where_one_is_needed(tmp_path: Path) -> None:
    from hicmae.data.manifest import Clip
    from tests.corpus import clip_bytes

    (tmp_path / "a.wav").write_bytes(clip_bytes(sound_only=True))
    (tmp_path / "v.mp4").write_bytes(clip_bytes())
    rows = [Clip(clip_id="sound", audio=tmp_path / "a.wav")]
    rows += [Clip(clip_id=f"both{i}", video=tmp_path / "v.mp4", start_s=0.1 * i) for i in range(3)]
    source = ManifestSource(read_manifest(write_manifest(tmp_path / "m.csv", rows)))
    stream = make_stream(source, max_skip_fraction=1.0, require_video=True)
    list(stream)
    assert stream.skipped == {"no_video_stream": 1}
    stream = make_stream(source)
    batches = list(stream)
    has_video = {n: bool(h) for b in batches for n, h in zip(b.clip_ids, b.has_video, strict=True)}
    assert has_video == {"sound": False, "both0": True, "both1": True, "both2": True}


def test_seeds_and_clips_give_unrelated_draws() -> None:
    draws = PretrainingDraws(model=MODEL)
    from hicmae.data.order import clip_generator

    keys = [(seed, epoch, f"c{i}") for seed in range(4) for epoch in range(4) for i in range(50)]
    positions = np.array([draws(clip_generator(*key)).position for key in keys])
    assert len(set(positions)) == len(keys)
    assert abs(positions.mean() - 0.5) < 0.05
    assert abs(np.corrcoef(positions[:-1], positions[1:])[0, 1]) < 0.1
