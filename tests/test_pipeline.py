"""What a worker makes of a planned batch: windows, draws, costs, and memory that is handed over without a copy."""

from __future__ import annotations

import io
import timeit
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hicmae.config import InputSpec, ModelConfig
from hicmae.data.augment import EvaluationDraws, PretrainingDraws, RecognitionAugment, RecognitionDraws
from hicmae.data.batch import ClipBatch
from hicmae.data.clip_decoder import ClipDecoder
from hicmae.data.loader import BatchLoader, LoaderSettings
from hicmae.data.order import clip_generator
from hicmae.data.pipeline import BuildEvaluationBatches, BuildTrainingBatches, _candidates
from hicmae.data.plan import PlannedBatch
from hicmae.data.source import ClipInfo, ClipSource, EncodedClip, ManifestSource
from hicmae.data.storage import StorageFormat
from hicmae.media.batch_transform import BatchTransform
from hicmae.media.decode import decode_clip
from hicmae.media.rand_augment import RandAugment
from hicmae.media.spec_augment import SpecAugment
from tests.corpus import make_corpus
from tests.media_files import make_clip
from tests.test_stream import tensors

MODEL = ModelConfig.preset("micro", image_size=32, num_frames=4)
SPEC = InputSpec.for_model(MODEL)
CLIPS, BATCH = 12, 4


@cache
def _stored(seconds: float) -> bytes:
    return make_clip(io.BytesIO(), seconds=seconds, size=(32, 32), gop=16)


@dataclass(frozen=True)
class StoredClips:
    """Clips that are stored as h264 at the model's size, in two shards; some are text."""

    storages: tuple[StorageFormat, ...] = (StorageFormat(video="h264", audio="aac", size=32),)
    broken: tuple[int, ...] = ()
    name: str = "stored"
    fingerprint: str = "stored"
    group_sizes: tuple[int, ...] = (6, 6)
    dataset_sizes: tuple[int, ...] = (12,)
    shard_names: tuple[str, ...] = ("a.tar", "b.tar")

    def __len__(self) -> int:
        return CLIPS

    def shard_of(self, number: int) -> int:
        return number // 6

    def info(self, number: int) -> ClipInfo:
        return ClipInfo(clip_id=f"clip{number}", subject="", split="", labels={})

    def read(self, number: int) -> EncodedClip:
        data = b"no film" * 10 if number in self.broken else _stored(3.0 + number / 10)
        return EncodedClip(clip_id=f"clip{number}", video=data, audio=None, span_s=None, subject="", labels={})


def _builder(source: ClipSource, **settings: Any) -> BuildTrainingBatches:
    decoder = ClipDecoder(spec=SPEC, pixels=settings.pop("pixels", "auto"))
    draws = settings.pop("draws", PretrainingDraws(model=MODEL))
    return BuildTrainingBatches(source=source, decode=decoder, draws=draws, labels=None, seed=3, **settings)


def _plans(**settings: Any) -> list[PlannedBatch]:
    joint = np.arange(CLIPS).reshape(-1, 1, BATCH)
    return [PlannedBatch(epoch=0, batch=i, clips=joint[i, 0], joint=joint, **settings) for i in range(len(joint))]


def _assert_same(left: ClipBatch, right: ClipBatch) -> None:
    assert left.clip_ids == right.clip_ids
    for (name, a), (_, b) in zip(tensors(left), tensors(right), strict=True):
        assert torch.equal(a, b), name


def test_several_windows_of_a_clip_go_into_as_many_batches() -> None:
    source = StoredClips()
    groups = list(_builder(source, windows_per_clip=3)(_plans()))
    assert [len(group) for group in groups] == [3, 3, 3]
    alone = list(_builder(source)(_plans()))
    draw = PretrainingDraws(model=MODEL)
    for group, (first,) in zip(groups, alone, strict=True):
        _assert_same(group[0], first)  # the first window is the one that a clip has alone
        for window, batch in enumerate(group):
            assert batch.clip_ids == first.clip_ids
            for row, clip_id in enumerate(batch.clip_ids):
                own = draw(clip_generator(3, 0, clip_id, window))
                assert batch.gain[row] == pytest.approx(own.gain)
                clip = decode_clip(
                    source.read(int(clip_id[4:])).video, spec=SPEC, position=own.position, pixels="yuv420p", name="x"
                )
                np.testing.assert_array_equal(batch.video[row].numpy(), clip.video)
                np.testing.assert_array_equal(batch.waveform[row].numpy(), clip.waveform)
        gains = torch.stack([batch.gain for batch in group])
        assert len(gains.unique()) == gains.numel()


def test_windows_handed_out_before_are_not_handed_out_again() -> None:
    builder = _builder(StoredClips(broken=(1,)), windows_per_clip=3)
    for group, rest in zip(builder(_plans()), builder(_plans(first_window=2)), strict=True):
        assert len(rest) == 1
        _assert_same(rest[0], group[2])


def test_a_clip_that_cannot_be_used_is_replaced_in_all_its_windows_and_counted_once() -> None:
    groups = list(_builder(StoredClips(broken=(1, 6)), windows_per_clip=2)(_plans()))
    for i, group in enumerate(groups):
        assert group[0].clip_ids == group[1].clip_ids
        assert len(set(group[0].clip_ids)) == BATCH
        assert [[skip.clip_id for skip in batch.skipped] for batch in group] == [
            [["clip1"], ["clip6"], []][i],
            [],
        ]
        assert not torch.equal(group[0].video, group[1].video)


def test_costs_are_counted_with_those_of_clips_that_could_not_be_used() -> None:
    source = StoredClips(broken=(1,))
    first, second = next(iter(_builder(source, windows_per_clip=2)(_plans())))
    used = [int(clip_id[4:]) for clip_id in first.clip_ids]
    assert first.bytes_read == sum(len(source.read(number).video or b"") for number in [*used, 1])
    assert sum(clips for clips, _, _ in first.shard_costs.values()) == BATCH + 1
    assert set(first.shard_costs) == {number // 6 for number in [*used, 1]}
    assert first.decode_seconds == pytest.approx(sum(decode for _, _, decode in first.shard_costs.values()))
    assert first.read_seconds == pytest.approx(sum(read for _, read, _ in first.shard_costs.values()))
    assert 0 < first.read_seconds < first.decode_seconds
    assert (second.bytes_read, second.read_seconds, second.decode_seconds, second.shard_costs) == (0, 0, 0, {})
    for batch in (first, second):
        assert batch.video_seconds == pytest.approx(BATCH * SPEC.window_seconds)
        assert batch.audio_seconds == pytest.approx(int(batch.sound_samples.sum()) / 16_000)
        assert batch.audio_seconds > 4


def test_planes_and_rgb_make_the_same_inputs() -> None:
    source = StoredClips()
    transform = BatchTransform(SPEC)
    for (planes,), (rgb,) in zip(_builder(source)(_plans()), _builder(source, pixels="rgb")(_plans()), strict=True):
        assert (planes.pixels, rgb.pixels) == ("yuv420p", "rgb24")
        assert planes.video.numel() * 2 == rgb.video.numel()
        left, right = (transform.frames(b.video, crop_box=b.crop_box, flip=b.flip) for b in (planes, rgb))
        assert torch.equal(left, right)


def test_the_form_of_the_pixels_is_chosen_by_how_clips_are_stored() -> None:
    stored = StorageFormat(video="h264", audio="aac", size=32)
    for others in ((replace(stored, size=64),), (stored, StorageFormat()), (replace(stored, video="jpeg"),)):
        source = StoredClips(storages=others)
        assert _builder(source).pixels == "rgb24"
        with pytest.raises(ValueError, match=r"stored holds .*Set pixels: auto"):
            _builder(source, pixels="yuv")
    assert _builder(StoredClips(), pixels="yuv").pixels == "yuv420p"
    assert ClipDecoder(spec=SPEC, decoder="decord").format_of(StoredClips()) == "rgb24"
    with pytest.raises(ValueError, match="decord gives RGB alone"):
        ClipDecoder(spec=SPEC, decoder="decord", pixels="yuv").format_of(StoredClips())
    with pytest.raises(ValueError, match="choose auto, rgb or yuv"):
        _builder(StoredClips(), pixels="bgr")
    for name in ("windows_per_clip", "views_per_clip"):
        with pytest.raises(ValueError, match=f"{name}=0 must be at least 1"):
            _builder(StoredClips(), **{name: 0})


def test_segments_of_a_clip_are_those_decoded_alone_and_failures_are_black(tmp_path: Path) -> None:
    source = ManifestSource(make_corpus(tmp_path, 3, corrupt=[1]))
    build = BuildEvaluationBatches(
        source=source, decode=ClipDecoder(spec=SPEC), draws=EvaluationDraws(image_size=32, segments=3), labels=None,
        batch_size=4, rank=0, world_size=1,
    )  # fmt: skip
    batches = list(build())
    valid = torch.cat([batch.valid for batch in batches]).tolist()
    assert valid == [True] * 3 + [False] * 3 + [True] * 3 + [False] * 3
    assert sum(len(batch.skipped) for batch in batches) == 3
    video = torch.cat([batch.video for batch in batches])
    waveform = torch.cat([batch.waveform for batch in batches])
    for row, works in enumerate(valid):
        if works:
            number, segment = divmod(row, 3)
            clip = decode_clip(source.read(number).video, spec=SPEC, position=segment / 2, name="x")
            np.testing.assert_array_equal(video[row].numpy(), clip.video)
            np.testing.assert_array_equal(waveform[row].numpy(), clip.waveform)
        else:
            assert not video[row].any()
            assert not waveform[row].any()


# ---------------------------------------------------------------- modalities withheld


@cache
def _stored_half(modality: str) -> bytes:
    """A clip that has the one modality alone."""
    return make_clip(
        io.BytesIO(), seconds=3.0, size=(32, 32), gop=16, with_video=modality == "video", with_audio=modality == "audio"
    )  # fmt: skip


@dataclass(frozen=True)
class HalfClips(StoredClips):
    """Every other clip lacks picture (1, 5, ...) or sound (3, 7, ...)."""

    def read(self, number: int) -> EncodedClip:
        whole = super().read(number)
        return replace(whole, video=_stored_half("audio" if number % 4 == 1 else "video")) if number % 2 else whole


def _withholding(pixels: str, **dropped: float) -> ClipBatch:
    """A batch of clips 0 to 3, everything on, of which all are to be without a modality."""
    augmentation = RecognitionAugment(
        rand_augment=RandAugment(probability=1.0), erase_probability=1.0, spec_augment=SpecAugment(), **dropped
    )
    build = _builder(HalfClips(), pixels=pixels, draws=RecognitionDraws(image_size=32, augmentation=augmentation))
    plan = PlannedBatch(epoch=0, batch=0, clips=np.arange(4), joint=np.arange(4)[None, None])
    return build._build(plan)[0]


@pytest.mark.parametrize("pixels", ["rgb", "yuv"])
@pytest.mark.parametrize(("dropped", "lacking"), [("video", 1), ("audio", 3)])
def test_a_modality_dropped_is_as_if_the_clip_lacked_it(pixels: str, dropped: str, lacking: int) -> None:
    """Whatever else is done to a clip: what it lacks always looks and sounds the same."""
    transform = BatchTransform(SPEC)
    plain, batch = _withholding(pixels), _withholding(pixels, **{f"drop_{dropped}": 1.0})
    assert plain.has_video.tolist() == [True, False, True, True]
    assert plain.has_audio.tolist() == [True, True, True, False]
    # Clips 0 and 2 lose one of two; 1 and 3 keep the only one that they have.
    assert batch.has_video.tolist() == ([False, False, False, True] if dropped == "video" else plain.has_video.tolist())
    assert batch.has_audio.tolist() == ([False, True, False, False] if dropped == "audio" else plain.has_audio.tolist())
    made = []
    for one in (plain, batch):
        video = transform.frames(one.video, crop_box=one.crop_box, frame_ops=one.frame_ops, erasures=one.erasures)
        sound = transform.sound(one.waveform, sound_samples=one.sound_samples, stripes=one.stripes)
        made.append({"video": video, "audio": sound})
    before, after = made
    for modality in ("video", "audio"):
        rows = [0, 2] if modality == dropped else []
        expected = before[modality].clone()
        expected[rows] = before[modality][lacking]
        assert torch.equal(after[modality], expected)


def test_an_evaluation_withholds_from_every_clip() -> None:
    build = BuildEvaluationBatches(
        source=HalfClips(), decode=ClipDecoder(spec=SPEC), draws=EvaluationDraws(image_size=32, withheld="audio"),
        labels=None, batch_size=8, rank=0, world_size=1,
    )  # fmt: skip
    batch = next(iter(build()))
    assert not batch.has_audio.any()
    assert not batch.waveform.any()
    assert not batch.sound_samples.any()
    assert batch.has_video.tolist() == [True, True, False, False, True, True, True, True]
    assert batch.valid.all()


@dataclass
class _Plans:
    def __call__(self) -> Iterator[PlannedBatch]:
        yield from _plans()


@dataclass
class _SharedAlready:
    """Handing a tensor over moves it to shared memory, which is a copy, unless it lies there before."""

    def __call__(self, groups: Iterable[tuple[ClipBatch, ...]]) -> Iterator[list[bool]]:
        for group in groups:
            yield [tensor.is_shared() for batch in group for tensor in (batch.video, batch.waveform)]


@pytest.mark.parametrize("pixels", ["rgb", "yuv"])
def test_a_worker_hands_its_batch_over_without_a_copy(pixels: str) -> None:
    settings = LoaderSettings(batch_size=BATCH, num_workers=1)
    build = _builder(StoredClips(), pixels=pixels, windows_per_clip=2)
    loader = BatchLoader([_Plans(), build, _SharedAlready()], settings, num_workers=1)
    assert list(loader) == [[True] * 4] * 3
    loader.close()
    here = next(iter(build(_plans())))
    assert not here[0].video.is_shared()  # one process needs no shared memory
    through = BatchLoader([_Plans(), build], settings, num_workers=1)
    _assert_same(next(iter(through))[1], here[1])
    through.close()


def test_replacements_come_from_the_whole_epoch_without_those_taken() -> None:
    epoch = np.arange(2_000)
    drawn = [_candidates(epoch, {0, 1, 2}, np.random.default_rng(seed)) for seed in range(200)]
    assert all(len(set(clips)) == len(clips) == 100 for clips in drawn)
    counts = np.bincount(np.concatenate(drawn), minlength=2_000)
    assert not counts[:3].any()
    assert counts[3:].mean() == pytest.approx(10, rel=0.01)
    assert counts[3:].max() < 30
    assert sorted(_candidates(np.array([4, 5, 4, 6]), {6}, np.random.default_rng(0))) == [4, 5]
    assert sorted(_candidates(np.array([4, 5]), {4, 5}, np.random.default_rng(0))) == [4, 5]


def test_replacing_a_clip_does_not_put_an_epoch_of_millions_in_order() -> None:
    epoch, taken = np.random.default_rng(0).permutation(4_000_000), set(range(40))
    sorting = min(timeit.repeat(lambda: np.sort(epoch), number=1, repeat=3))
    drawing = min(timeit.repeat(lambda: _candidates(epoch, taken, np.random.default_rng(1)), number=1, repeat=3))
    assert drawing < sorting / 10


# ---------------------------------------------------------------- several views of a clip


@pytest.mark.parametrize("windows", [1, 2])
def test_views_share_pixels_and_sound_and_have_draws_of_their_own(windows: int) -> None:
    draws = PretrainingDraws(model=MODEL, video_decode_ratio=0.5, audio_decode_ratio=0.5)
    settings: dict[str, Any] = {"windows_per_clip": windows, "draws": draws}
    source = StoredClips(broken=(1,))
    alone = list(_builder(source, **settings)(_plans()))
    for group, expected in zip(_builder(source, views_per_clip=3, **settings)(_plans()), alone, strict=True):
        for window, (batch, single) in enumerate(zip(group, expected, strict=True)):
            # pixels and sound are shipped once, and the skipped clip is told once
            assert (len(batch), batch.views, len(batch.video)) == (BATCH, 3, BATCH)
            assert torch.equal(batch.video, single.video)
            assert torch.equal(batch.waveform, single.waveform)
            assert batch.skipped == single.skipped
            assert batch.video_seconds == single.video_seconds
            assert batch.bytes_read == single.bytes_read
            rows = batch.each_view()
            assert rows.video.shape[0] == 3 * BATCH
            for row, clip_id in enumerate(rows.clip_ids):
                own = draws(clip_generator(3, 0, clip_id, window, row % 3))
                assert np.array_equal(rows.crop_box[row], own.crop_box)
                assert rows.gain[row] == pytest.approx(own.gain)
                for name in ("video_visible", "audio_visible", "video_decoded", "audio_decoded"):
                    assert np.array_equal(getattr(rows, name)[row], getattr(own, name)), name
            # the first view is the one that a clip has alone
            for (name, a), (_, b) in zip(tensors(replace(rows, clip_of=None)), tensors(single), strict=True):
                assert torch.equal(a[::3], b), name
            assert len(batch.gain.unique()) == 3 * BATCH


def test_what_is_withheld_is_the_same_in_all_views_of_a_clip() -> None:
    draws = RecognitionDraws(image_size=32, augmentation=RecognitionAugment(drop_video=0.4, drop_audio=0.4))
    for (batch,), (alone,) in zip(
        _builder(StoredClips(), views_per_clip=2, draws=draws)(_plans()),
        _builder(StoredClips(), draws=draws)(_plans()),
        strict=True,
    ):
        assert torch.equal(batch.has_video, alone.has_video)
        assert torch.equal(batch.has_audio, alone.has_audio)
        assert not torch.cat([alone.has_video, alone.has_audio]).all()
        rows = batch.each_view()
        assert len(rows.frame_ops) == len(rows.erasures) == 2 * BATCH
