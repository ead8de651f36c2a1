"""Hostile and damaged clips: a reason or the right frames and sound; never a crash, a hang, or a full memory.

What no decoder can notice is counted here too. Of 2,880 mutations (20 of each kind of each file), handed to
``decode_clip`` as they are, 1,944 were refused, 767 were right, and 169 (5.9%) were delivered with frames or sound that
are not those of the whole file: 111 of the 720 with sound as bare samples (WAV, AVI), which have no redundancy at all,
and 58 (2.7%) of the others, where a flipped bit of a residual is as good a residual, and another time stamp as good a
time stamp.
With shards none of them gets through, as every read is compared with the checksum of what was written.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hicmae.config import InputSpec, ModelConfig
from hicmae.data.augment import PretrainingDraws
from hicmae.data.loader import LoaderSettings
from hicmae.data.manifest import Clip, Manifest, read_manifest
from hicmae.data.shard_source import ShardSource
from hicmae.data.shard_writer import write_shards
from hicmae.data.source import ClipUnreadableError, ManifestSource
from hicmae.data.stream import TrainStream
from hicmae.media.clip import DecodedClip, DecodeError
from hicmae.media.decode import decode_clip
from tests.clip_truth import Truth, time_code
from tests.corpus import clip_bytes
from tests.hostile_clips import Hostile, hostile_clips
from tests.media_files import frame_times, read_picture_time
from tests.mutation_process import Item, outcomes
from tests.mutations import CRASH, HANG, HUNGER, Base, bases, mutate, plan, write_bases

SPEC = InputSpec(image_size=64)
MODEL = ModelConfig.preset("micro", image_size=64, num_frames=4)
MODEL_SPEC = InputSpec.for_model(MODEL)
GOOD = Truth(times_s=tuple(map(float, frame_times(2.8, 25))), sound_s=(0.0, 2.8))
EACH = 4
"""Mutations of each kind of each base file."""
MOST_WRONG = 0.07
"""Share of the mutations that may be delivered wrong where there is no checksum."""
MOST_CPU_S = 10.0
MOST_PEAK_MB = 1500.0


@pytest.fixture(scope="module")
def hostile() -> dict[str, Hostile]:
    return hostile_clips()


@pytest.fixture(scope="module")
def whole() -> dict[str, Base]:
    return bases()


@pytest.fixture(scope="module")
def answers(whole: dict[str, Base], tmp_path_factory: pytest.TempPathFactory) -> dict[Item, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("mutations")
    write_bases(whole, folder)
    return dict(outcomes(folder, plan(whole, EACH)))


# ---------------------------------------------------------------------------------------------- hostile clips


@pytest.mark.parametrize("position", [0.0, 0.5, 1.0])
def test_hostile_clips_are_refused_with_a_reason_or_decoded_right(hostile: dict[str, Hostile], position: float) -> None:
    wrong = {}
    for name, clip in hostile.items():
        try:
            decoded = decode_clip(clip.video, clip.audio, spec=SPEC, position=position, name=name, require_video=True)
        except DecodeError as error:
            if error.reason not in clip.reasons:
                wrong[name] = str(error)
            continue
        faults = clip.truth.faults(decoded, SPEC) if clip.truth else ["it was not refused"]
        if faults:
            wrong[name] = ", ".join(faults)
    assert not wrong


def test_a_stream_skips_hostile_clips_by_name_and_delivers_the_others_right(
    hostile: dict[str, Hostile], tmp_path: Path
) -> None:
    count = 12 - len(hostile) % 4  # no remainder, which an epoch leaves out
    good = {f"good_{i:02d}": Hostile(video=clip_bytes(2.8), truth=GOOD) for i in range(count)}
    clips = good | hostile
    stream = TrainStream(
        ManifestSource(_manifest(clips, tmp_path)),
        spec=MODEL_SPEC,
        draws=PretrainingDraws(model=MODEL),
        loader=LoaderSettings(batch_size=4, num_workers=2, max_skip_fraction=1.0, require_video=True),
    )
    batches = list(stream)
    stream.close()
    bad = {name: clip.reasons for name, clip in clips.items() if clip.reasons}
    skipped = [(skip.clip_id, skip.reason) for batch in batches for skip in batch.skipped]
    assert sorted(name for name, _ in skipped) == sorted(bad)
    assert all(reason in bad[name] for name, reason in skipped)
    assert sum(stream.skipped.values()) == len(bad)
    delivered = Counter()
    for batch in batches:
        for i, name in enumerate(batch.clip_ids):
            truth = clips[name].truth
            assert truth is not None, name
            delivered[name] += 1
            decoded = DecodedClip(
                video=batch.video[i].numpy(), waveform=batch.waveform[i].numpy(),
                has_video=bool(batch.has_video[i]), has_audio=bool(batch.has_audio[i]),
                start_s=_start_of(batch.video[i].numpy(), truth), frame_times_s=np.zeros(0),
                sound_samples=int(batch.sound_samples[i]),
            )  # fmt: skip
            assert not truth.faults(decoded, MODEL_SPEC), name
    # Every usable clip once, and for each skipped one another a second time.
    assert set(delivered) == set(clips) - set(bad)
    assert delivered.total() == len(clips)


def _manifest(clips: dict[str, Hostile], folder: Path) -> Manifest:
    rows = []
    for name, clip in clips.items():
        paths = {}
        for role, data in (("video", clip.video), ("audio", clip.audio)):
            if data is not None:
                paths[role] = folder / f"{name}.{'mp4' if role == 'video' else 'wav'}"
                paths[role].write_bytes(data)
        rows.append(Clip(clip_id=name, **paths))
    # Not read from a file: reading refuses files of zero bytes, which may also come to be after that.
    return Manifest(path=folder / "manifest.csv", clips=tuple(rows))


def _start_of(video: np.ndarray, truth: Truth) -> float:
    """Where a window starts, by its first frame; 0 for pictures without a time code."""
    if truth.picture is not time_code:
        return 0.0
    code = read_picture_time(video[0])
    codes = [round((time + truth.shift_s) * 1000) % 65536 / 1000 for time in truth.times_s]
    return truth.times_s[codes.index(code)]


def test_a_manifest_with_a_file_of_zero_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "manifest.csv").write_text("clip_id,video\nempty,empty.mp4\n")
    with pytest.raises(ValueError, match="zero length"):
        read_manifest(tmp_path / "manifest.csv")


# ------------------------------------------------------------------------------------------- generated mutations


def test_mutations_are_many_and_differ_from_the_whole_file(whole: dict[str, Base]) -> None:
    changed = sum(mutate(whole, *item) != whole[item[0]].damaged for item in plan(whole, EACH))
    assert changed >= 300


def test_no_mutation_crashes_hangs_or_fills_the_memory(
    whole: dict[str, Base], answers: dict[Item, dict[str, Any]]
) -> None:
    assert len(answers) == len(plan(whole, EACH))
    broken = {item: answer for item, answer in answers.items() if answer["result"] in ("error", "crash", "hang")}
    assert not broken
    assert max(answer["cpu_s"] for answer in answers.values()) < MOST_CPU_S
    assert max(answer["peak_mb"] for answer in answers.values()) < MOST_PEAK_MB


def test_most_mutations_are_refused_or_right(answers: dict[Item, dict[str, Any]]) -> None:
    results = Counter(answer["result"] for answer in answers.values())
    assert results["wrong"] <= MOST_WRONG * len(answers), {
        item: answer["detail"] for item, answer in answers.items() if answer["result"] == "wrong"
    }
    assert results["refused"] > len(answers) / 2
    assert results["right"] > 0


def test_cut_files_are_always_refused(answers: dict[Item, dict[str, Any]]) -> None:
    assert {answer["result"] for (_, kind, _), answer in answers.items() if kind == "cut"} == {"refused"}


def test_whole_files_are_right(whole: dict[str, Base]) -> None:
    for base in whole.values():
        for position in (0.0, 0.5, 1.0):
            assert not base.truth.faults(base.decode(base.damaged, position), SPEC), base.name


def test_wrong_frames_and_sound_are_told(whole: dict[str, Base]) -> None:
    base = whole["mp4"]
    clip = base.decode(base.damaged, 0.0)
    late = dataclasses.replace(clip, start_s=clip.start_s + 0.04)
    assert base.truth.faults(late, SPEC) == ["16 frames wrong", "59 blocks of sound wrong"]
    assert base.truth.faults(dataclasses.replace(clip, has_video=False), SPEC) == ["has_video is False"]
    assert base.truth.faults(dataclasses.replace(clip, has_audio=False), SPEC) == ["2.60 s of sound for 2.60 s"]


@pytest.mark.parametrize(("kind", "result"), [(CRASH, "crash"), (HANG, "hang"), (HUNGER, "error")])
def test_the_decoding_process_tells_which_mutation_broke_it(
    kind: str, result: str, whole: dict[str, Base], tmp_path: Path
) -> None:
    write_bases(whole, tmp_path)
    items: list[Item] = [("mp4", "cut", 0), ("mp4", kind, 0), ("mp4", "cut", 0)]
    found = [answer for _, answer in outcomes(tmp_path, items, patience_s=3.0)]
    assert [answer["result"] for answer in found] == ["refused", result, "refused"]


# -------------------------------------------------------------------------------------------------------- shards


def test_no_mutation_gets_through_a_shard(
    whole: dict[str, Base], answers: dict[Item, dict[str, Any]], tmp_path: Path
) -> None:
    rows = {name: Hostile(video=base.picture or base.damaged, audio=base.picture and base.damaged)
            for name, base in whole.items()}  # fmt: skip
    write_shards(_manifest(rows, tmp_path), tmp_path / "shards")
    (tar,) = (tmp_path / "shards").glob("*.tar")
    source = ShardSource(tmp_path / "shards")
    number_of = {source.info(number).clip_id: number for number in range(len(source))}
    assert set(number_of) == set(whole)
    content = tar.read_bytes()
    place = {name: content.index(base.damaged) for name, base in whole.items()}
    reasons: Counter[str] = Counter()
    with tar.open("r+b") as file:

        def put(name: str, data: bytes) -> None:
            file.seek(place[name])
            file.write(data)
            file.flush()

        for item in answers:
            base = whole[item[0]]
            data = mutate(whole, *item)[: len(base.damaged)]
            if base.damaged.startswith(data):
                continue  # nothing is changed but the end, which a tar has no place for
            put(base.name, data)
            try:
                source.read(number_of[base.name])
                reasons[f"none for {item}"] += 1
            except ClipUnreadableError as error:
                reasons[error.reason] += 1
            put(base.name, base.damaged)
    assert set(reasons) == {"checksum_mismatch"}
    assert reasons.total() >= 300
    assert tar.read_bytes() == content
