from __future__ import annotations

import csv
import io
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from hicmae.cli import main
from hicmae.config import InputSpec
from hicmae.data import shard_pack, shard_writer
from hicmae.data.clip_table import ClipTable
from hicmae.data.manifest import Clip, Manifest, read_manifest, write_manifest
from hicmae.data.packed import PackedClip
from hicmae.data.shard_foreign import index_foreign
from hicmae.data.shard_index import ShardIndex
from hicmae.data.shard_plan import SizeEstimate, plan_shards
from hicmae.data.shard_source import ShardSource
from hicmae.data.shard_verify import verify_shards
from hicmae.data.shard_writer import write_shards
from hicmae.data.source import ManifestSource
from hicmae.data.storage import StorageFormat
from hicmae.data.tar_members import scan_tar
from hicmae.media.decode import decode_clip
from hicmae.media.picture_writer import SETTINGS
from tests.corpus import clip_bytes, make_corpus

SMALL_MB = 0.07  # a few clips a shard


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 10, corrupt=(4,), text=(7,))


@pytest.fixture(scope="module")
def packed(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "shards"
    write_shards(manifest, folder, shard_mb=SMALL_MB)
    return folder


@pytest.fixture
def shards(packed: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(packed, tmp_path / "shards"))


def test_every_clip_is_packed_byte_for_byte_or_rejected_with_a_reason(manifest: Manifest, packed: Path) -> None:
    index, _ = ShardIndex.read(packed)
    assert len(index.shards) > 2
    assert {(reject.clip_id, reject.reason) for reject in index.rejected} == {
        ("clip004", "truncated"),
        ("clip007", "unknown_format"),
    }
    with (packed / "rejects.csv").open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == [reject.clip_id for reject in index.rejected]
    source = ShardSource(packed)
    clips = {clip.clip_id: clip for clip in manifest.clips}
    assert {source.info(i).clip_id for i in range(len(source))} == set(clips) - {"clip004", "clip007"}
    for i in range(len(source)):
        stored, clip = source.read(i), clips[source.info(i).clip_id]
        assert clip.video is not None
        assert stored.video == clip.video.read_bytes()
        assert stored.audio is None
        assert (stored.subject, stored.labels) == (clip.subject, clip.labels)
        assert source.info(i).split == clip.split
    assert index.totals()["samples"] == 8
    assert index.totals()["seconds"] == pytest.approx(sum((2.8, 3.6)[i % 2] for i in range(10) if i not in (4, 7)))


def test_tars_are_plain_webdataset(packed: Path) -> None:
    from webdataset.tariterators import group_by_keys, tar_file_expander

    index, _ = ShardIndex.read(packed)
    # opened here: in its secure mode, which we set, WebDataset opens no local files by itself
    streams = [{"url": shard.name, "stream": io.BytesIO((packed / shard.name).read_bytes())} for shard in index.shards]
    samples = list(group_by_keys(tar_file_expander(streams)))
    assert {sample["__key__"] for sample in samples} == set(index.clips.values("clip_id"))
    for sample in samples:
        assert json.loads(sample["json"])["id"] == sample["__key__"]
        assert sample["mp4"][4:8] == b"ftyp"


def test_clips_are_permuted_by_the_seed(manifest: Manifest) -> None:
    def order(seed: int) -> list[str]:
        plan = plan_shards(manifest, shard_bytes=10**9, seed=seed)
        return [clip.clip_id for shard in plan.shards for clip in shard]

    assert order(0) == order(0)
    assert sorted(order(0)) == [clip.clip_id for clip in manifest.clips]
    assert order(0) != order(1)
    assert order(0) != sorted(order(0))


def test_restart_redoes_only_what_is_missing(manifest: Manifest, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in shards.glob("*.tar")}
    index_before = (shards / "index.json").read_text()
    (shards / "index.json").unlink()
    (shards / "shard-000001.tar").unlink()
    (shards / "shard-000000.tar").write_bytes(b"half")  # a copy that failed
    (shards / "parts" / "shard-000002.json").unlink()  # killed between the tar and its part file
    (shards / ".shard-000001.tar.1234.tmp").write_bytes(b"half")  # killed while it was written
    probed: list[str] = []
    real = shard_pack.probe
    monkeypatch.setattr(shard_pack, "probe", lambda data, *, name: (probed.append(name), real(data, name=name))[1])
    report = write_shards(manifest, shards, shard_mb=SMALL_MB)
    plan = plan_shards(manifest, shard_bytes=round(SMALL_MB * 1e6), seed=0)
    assert sorted(probed) == sorted(str(clip.video) for shard in plan.shards[:3] for clip in shard)
    assert report.already_done == len(plan.shards) - 3
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in shards.glob("*.tar")}
    assert {name: data for name, (data, _) in after.items()} == {name: data for name, (data, _) in before.items()}
    untouched = sorted(after)[3:]
    assert [after[name] for name in untouched] == [before[name] for name in untouched]
    assert (shards / "index.json").read_text() == index_before
    assert not list(shards.glob(".*.tmp"))


def test_a_killed_job_takes_its_processes_with_it(manifest: Manifest, tmp_path: Path) -> None:
    def processes() -> list[str]:
        found = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # ended in the meantime
                state, _, _, session = status.read_text().rpartition(") ")[2].split()[:4]
                if session == str(job.pid) and state != "Z":
                    found.append(status.parent.name)
        return found

    command = ["-m", "hicmae", "shards", "write", str(manifest.path), str(tmp_path), "--workers=2", "--shard-mb=0.01"]
    job = subprocess.Popen([sys.executable, *command, "--format=jpeg", "--size=512"], start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob(".shard-*.tmp")) and job.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert job.poll() is None, "it ended before it could be killed"
        assert len(processes()) > 2
        job.kill()
        job.wait()
        deadline = time.monotonic() + 20
        while processes() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not processes()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)


def test_a_process_that_dies_is_an_error_with_a_remedy(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def dying(*_: object) -> None:
        raise BrokenProcessPool("a process was terminated abruptly")

    monkeypatch.setattr(shard_writer, "_write_in_processes", dying)
    command = ["shards", "write", str(manifest.path), str(tmp_path / "out"), "--workers", "2", "--shard-mb", "0.07"]
    assert main(command) == 2
    assert "fewer --workers" in capsys.readouterr().err


def test_a_failure_leaves_no_half_written_shard(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullDisk(io.RawIOBase):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(shard_writer, "_HashingFile", lambda file: FullDisk())
    with pytest.raises(OSError, match="No space left"):
        write_shards(manifest, tmp_path / "out", shard_mb=SMALL_MB)
    assert [path.name for path in (tmp_path / "out").iterdir()] in (["parts", "plan.json"], ["plan.json", "parts"])
    assert not list((tmp_path / "out" / "parts").iterdir())
    manifest_path = str(manifest.path)
    out = str(tmp_path / "out2")
    assert main(["shards", "write", manifest_path, out, "--workers", "1"]) == 2


def test_parts_merge_when_the_last_is_done(manifest: Manifest, packed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    first = write_shards(manifest, folder, shard_mb=SMALL_MB, part=(1, 2))
    assert first.index is None
    assert first.missing_shards > 0
    assert not (folder / "index.json").exists()
    second = write_shards(manifest, folder, shard_mb=SMALL_MB, part=(2, 2))
    assert second.index is not None
    assert (folder / "index.json").read_text() == (packed / "index.json").read_text()
    assert first.packed + second.packed == 8
    assert len(first.rejected) + len(second.rejected) == 2


def test_processes_give_the_same_shards(manifest: Manifest, packed: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    folder = tmp_path / "shards"
    write_shards(manifest, folder, shard_mb=SMALL_MB, workers=2, on_progress=lambda *counts: seen.append(counts))
    assert (folder / "index.json").read_text() == (packed / "index.json").read_text()
    for tar in packed.glob("*.tar"):
        assert (folder / tar.name).read_bytes() == tar.read_bytes()
    assert seen[0] == (0, 10)
    assert seen[-1] == (10, 10)


def test_a_folder_of_something_else_is_refused(manifest: Manifest, shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shard_bytes: 70000 there, 90000 now.*another folder"):
        write_shards(manifest, shards, shard_mb=0.09)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"mine\.tar, which this command did not write"):
        write_shards(manifest, tmp_path / "other")
    for options in ({"part": (3, 2)}, {"workers": 0}, {"shard_mb": 0.0}):
        with pytest.raises(ValueError, match="within 1/n to n/n"):
            write_shards(manifest, tmp_path / "new", **options)  # type: ignore[arg-type]


def test_what_does_not_fit_the_manifest_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(clip_bytes())
    (tmp_path / "a.wav").write_bytes(clip_bytes(sound_only=True))
    (tmp_path / "sound.mp4").write_bytes(clip_bytes(sound_only=True))
    (tmp_path / "v.dat").write_bytes(clip_bytes())
    rows = [
        Clip(clip_id="both", video=tmp_path / "v.mp4", audio=tmp_path / "a.wav", start_s=0.5, end_s=2.0),
        Clip(clip_id="sound", audio=tmp_path / "a.wav", start_s=1.0),
        Clip(clip_id="late", video=tmp_path / "v.mp4", start_s=60.0),
        Clip(clip_id="blind", video=tmp_path / "sound.mp4"),
        Clip(clip_id="odd", video=tmp_path / "v.dat"),
    ]
    report = write_shards(read_manifest(write_manifest(tmp_path / "m.csv", rows)), tmp_path / "out")
    assert {(reject.clip_id, reject.reason) for reject in report.rejected} == {
        ("late", "span_outside"),
        ("blind", "no_video_stream"),
        ("odd", "unknown_extension"),
    }
    source = ShardSource(tmp_path / "out")
    stored = {source.info(i).clip_id: source.read(i) for i in range(len(source))}
    assert stored["both"].audio == clip_bytes(sound_only=True)
    assert stored["both"].span_s == (0.5, 2.0)
    assert stored["sound"].video is None
    index, _ = ShardIndex.read(tmp_path / "out")
    durations = {clip.clip_id: clip.duration_s for clip in index.clips.clips()}
    assert durations == {"both": 1.5, "sound": pytest.approx(1.8, abs=0.01)}


def test_everything_rejected_ends_with_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = make_corpus(tmp_path / "corpus", 2, text=(0, 1))
    assert main(["shards", "write", str(manifest.path), str(tmp_path / "out"), "--workers", "1"]) == 1
    output = capsys.readouterr().out
    assert "0 clips packed, 2 rejected" in output
    assert "unknown_format: 2" in output
    with pytest.raises(ValueError, match="holds no clips"):
        ShardSource(tmp_path / "out")


def test_commands(manifest: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert main(["shards", "write", str(manifest.path), out, "--split", "test", "--workers", "1"]) == 0
    assert "1 clips packed, 1 rejected" in capsys.readouterr().out
    assert main(["shards", "info", out]) == 0
    assert "angry 1" in capsys.readouterr().out
    assert main(["shards", "verify", out]) == 0
    assert "1 shards, 1 clips, 1 decoded: 0 problems" in capsys.readouterr().out
    assert main(["shards", "write", str(manifest.path), out, "--split", "dev"]) == 2
    assert "no clip has split 'dev'" in capsys.readouterr().err
    assert main(["shards", "info", str(tmp_path / "nowhere")]) == 2
    assert "no such index" in capsys.readouterr().err


def edit_clips(folder: Path, edit: Callable[[list[PackedClip]], None]) -> None:
    """Write the index anew with other clips."""
    index, _ = ShardIndex.read(folder)
    clips = list(index.clips.clips())
    edit(clips)
    rows = iter(clips)
    groups = [list(itertools.islice(rows, shard.samples)) for shard in index.shards]
    replace(index, clips=ClipTable.build(groups)).write(folder)


def test_verify_is_content_with_whole_shards(packed: Path) -> None:
    report = verify_shards(packed, decode=3)
    assert report.problems == ()
    assert (report.clips, report.decoded) == (8, 3)


def test_verify_finds_flipped_cut_missing_and_stray_shards(shards: Path) -> None:
    tars = sorted(shards.glob("*.tar"))
    data = bytearray(tars[0].read_bytes())
    data[5000] ^= 0xFF
    tars[0].write_bytes(data)
    tars[1].write_bytes(tars[1].read_bytes()[: tars[1].stat().st_size // 2])
    tars[2].rename(shards / "stray.tar")
    problems = "\n".join(verify_shards(shards).problems)
    assert "shard-000000.tar has SHA-256" in problems
    assert "shard-000001.tar has" in problems
    assert "cut off" in problems
    assert "shard-000002.tar is missing" in problems
    assert "stray.tar is not in the index" in problems


def test_verify_compares_places_and_ids(shards: Path) -> None:
    second = ShardIndex.read(shards)[0].shards[0].samples

    def edit(clips: list[PackedClip]) -> None:
        offset, size = clips[0].members["mp4"]
        clips[0] = replace(clips[0], members=clips[0].members | {"mp4": (offset + 1, size)})
        clips[second] = replace(clips[second], clip_id=clips[1].clip_id)

    edit_clips(shards, edit)
    problems = "\n".join(verify_shards(shards, decode=0).problems)
    assert "the index says" in problems
    assert "is in shard-000000.tar and again in shard-000001.tar" in problems
    assert "in the tar and not in the index" in problems


def add_members(tar: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(tar, "a") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def test_pickled_and_foreign_members_are_refused(shards: Path) -> None:
    add_members(shards / "shard-000000.tar", {"evil.pyd": b"cos\nsystem\n", "evil.cls.pickle": b"x", "note.txt": b"x"})
    problems = "\n".join(verify_shards(shards, decode=0).problems)
    assert "'evil.pyd' does not belong there: '.pyd' members can run code" in problems
    assert "'evil.cls.pickle' does not belong there: '.cls.pickle' members can run code" in problems
    assert "'note.txt' does not belong there" in problems


def test_foreign_tars_are_indexed_and_what_is_unsafe_is_left_out(tmp_path: Path) -> None:
    clip, wav = clip_bytes(), clip_bytes(sound_only=True)
    meta = json.dumps({"subject": 7, "labels": {"emotion": "happy", "valence": "0.5"}, "fps": 25}).encode()
    add_members(
        tmp_path / "a.tar",
        {
            "train/one.mp4": clip, "train/one.json": meta,
            "two.MP4": clip, "two.wav": wav,
            "evil.mp4": clip, "evil.pyd": b"cos\nsystem\n",
            "../up.mp4": clip,
            "silent.txt": b"no media",
            "only.json": b"{}",
            "bad.json": b"not json", "bad.mp4": clip,
            "pair.mp4": clip, "pair.avi": clip,
            "two.mp4": clip,
        },
    )  # fmt: skip
    index = index_foreign(tmp_path)
    assert [(c.clip_id, sorted(c.members)) for c in index.clips.clips()] == [
        ("train_one", ["json", "mp4"]),
        ("two", ["mp4", "wav"]),
    ]
    assert index.clips.labels(0) == {"emotion": "happy", "valence": 0.5}
    assert index.clips.subject(0) == "7"
    assert index.clips.crc32(1) == zlib.crc32(clip + wav)
    assert {(reject.clip_id, reject.reason) for reject in index.rejected} == {
        ("evil", "refused_member"),
        ("../up", "unsafe_name"),
        ("silent", "refused_member"),
        ("only", "ambiguous_members"),
        ("bad", "bad_json"),
        ("pair", "ambiguous_members"),
        ("two", "duplicate_id"),
    }
    assert ShardSource(tmp_path).read(1).audio == wav
    with pytest.raises(FileExistsError, match="remove it"):
        index_foreign(tmp_path)


def test_a_tar_of_a_folder_is_indexed(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "one.mp4").write_bytes(clip_bytes())
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "clips", arcname=".")
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        archive.add(tmp_path / "clips", arcname="clips")
    index = index_foreign(tmp_path)
    assert index.clips.values("clip_id") == ["one", "clips_one"]
    assert index.rejected == ()
    assert verify_shards(tmp_path, decode=2).problems == ()


def test_shards_begun_with_another_encoder_are_not_gone_on_with(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(manifest, tmp_path / "out", storage=H264, part=(1, 2))
    monkeypatch.setitem(SETTINGS, "h264", SETTINGS["h264"] | {"crf": "30"})
    with pytest.raises(ValueError, match=r"encoding: .*'crf': '20'.* there, .*'crf': '30'.* now"):
        write_shards(manifest, tmp_path / "out", storage=H264, part=(2, 2))


@pytest.mark.parametrize("cut", ["member", "header", "end"])
def test_scan_tar_sees_every_kind_of_cut(shards: Path, cut: str) -> None:
    tar = shards / "shard-000000.tar"
    members, problem = scan_tar(tar)
    assert problem is None
    last = members[-1]
    end = last.offset + -(-last.size // 512) * 512
    size = {"member": last.offset + last.size // 2, "header": last.offset - 300, "end": end}[cut]
    tar.write_bytes(tar.read_bytes()[:size])
    kept, problem = scan_tar(tar)
    assert problem is not None
    assert len(kept) == len(members) - (cut != "end")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a shard index"),
        ("[]", "not a shard index"),
        ('{"schema": 99}', "schema 99.*newer hicmae"),
        ('{"schema": 1, "format": "original"}', "schema 1 .*hicmae shards index"),
        ('{"schema": 2}', "damaged"),
        (
            '{"schema": 2, "shards": [{"name": "../x.tar", "bytes": 1, "sha256": "", "samples": 1}]}',
            "not a plain file name",
        ),
    ],
)
def test_bad_indexes_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        ShardIndex.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": {"mp4": (-5, 100)}}, "would lie at bytes -5"),
        ({"members": {"mp4": (512, 10**9)}}, "of a shard of"),
        ({"members": {"mp4": (512, 2**62)}}, "of a shard of"),
        ({"members": {"json": (512, 100)}}, "neither picture nor sound"),
    ],
)
def test_places_outside_the_tar_are_refused_at_the_start(shards: Path, changes: dict, message: str) -> None:
    def edit(clips: list[PackedClip]) -> None:
        clips[0] = replace(clips[0], **changes)

    edit_clips(shards, edit)
    with pytest.raises(ValueError, match=message):
        ShardIndex.read(shards)


def test_another_data_sets_table_of_clips_is_refused(shards: Path, manifest: Manifest, tmp_path: Path) -> None:
    write_shards(manifest, tmp_path / "other", shard_mb=SMALL_MB, seed=1)
    shutil.copy(tmp_path / "other" / "clips.arrow", shards / "clips.arrow")
    with pytest.raises(ValueError, match="not the file that was written with this index"):
        ShardIndex.read(shards)
    (shards / "clips.arrow").unlink()
    with pytest.raises(FileNotFoundError, match="copy the whole folder"):
        ShardIndex.read(shards)


JPEG = StorageFormat(video="jpeg", audio="wav", size=48)
H264 = StorageFormat(video="h264", audio="flac", size=48)


@pytest.fixture(scope="module", params=[JPEG, H264, replace(H264, audio="aac")], ids=str)
def encoded(request: pytest.FixtureRequest, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoded") / "shards"
    write_shards(manifest, folder, storage=request.param, shard_mb=0.3)
    return folder


def test_re_encoded_clips_are_indexed_with_their_format_and_quality(manifest: Manifest, encoded: Path) -> None:
    index, _ = ShardIndex.read(encoded)
    assert {(reject.clip_id, reject.reason) for reject in index.rejected} == {
        ("clip004", "truncated"),
        ("clip007", "unknown_format"),
    }
    clips = {clip.clip_id: clip for clip in manifest.clips}
    picture = "frames" if index.storage.video == "jpeg" else "mp4"
    separate = {index.storage.audio} - {"aac"}
    source = ShardSource(encoded)
    for row, clip in enumerate(index.clips.clips()):
        assert set(clip.members) == {picture, "json"} | separate
        assert clip.duration_s == pytest.approx((2.8, 3.6)[int(clip.clip_id[-1]) % 2], abs=1e-3)
        assert (clip.subject, clip.labels) == (clips[clip.clip_id].subject, clips[clip.clip_id].labels)
        assert clip.crc32 is not None
        stored = source.read(row)
        assert (stored.span_s, stored.square) == (None, None)
        assert (stored.audio is None) == (index.storage.audio == "aac")
    assert len(index.clips) == index.quality["clips"] == 8
    assert 30 < index.quality["luma_psnr_db"]["min"] <= index.quality["luma_psnr_db"]["mean"] < 60
    assert 15 < index.quality["sound_snr_db"]["min"] <= index.quality["sound_snr_db"]["mean"] <= 100
    assert index.made_by["estimate"]["bytes_per_second"] > 0
    assert verify_shards(encoded, decode=3).problems == ()


def test_spans_are_cut_and_the_square_is_applied_once(manifest: Manifest, tmp_path: Path) -> None:
    video = manifest.clips[1].video
    row = Clip(clip_id="part", video=video, start_s=0.4, end_s=3.0)
    path = write_manifest(tmp_path / "m.csv", [row, replace(row, clip_id="outside", start_s=60.0, end_s=61.0)])
    report = write_shards(read_manifest(path), tmp_path / "out", storage=replace(H264, square=(0, 0, 24)))
    assert [(reject.clip_id, reject.reason) for reject in report.rejected] == [("outside", "span_outside")]
    clip = next(ShardIndex.read(tmp_path / "out")[0].clips.clips())
    assert (clip.start_s, clip.end_s, clip.duration_s) == (None, None, 2.6)
    stored = ShardSource(tmp_path / "out").read(0)
    assert stored.square is None
    window = decode_clip(stored.video, stored.audio, spec=InputSpec(image_size=48), position=0.0, name="part")
    whole = decode_clip(video.read_bytes() if video else None, spec=InputSpec(image_size=96), position=0.0,
                        span_s=(0.4, 3.0), name="whole")  # fmt: skip
    # The stored square is the upper left quarter of the picture.
    assert np.abs(window.video.astype(int) - whole.video[:, :48, :48]).mean() < 12
    assert window.sound_samples == whole.sound_samples


def test_squares_that_do_not_fit_are_rejected(manifest: Manifest, tmp_path: Path) -> None:
    for number, storage in enumerate((replace(H264, square=(0, 0, 49)), StorageFormat(square=(0, 0, 49)))):
        report = write_shards(manifest, tmp_path / str(number), storage=storage)
        reasons = {reject.reason for reject in report.rejected}
        assert (report.packed, reasons) == (0, {"square_outside", "truncated", "unknown_format"})
    assert ShardIndex.read(tmp_path / "1")[0].storage.square == (0, 0, 49)


def test_a_clip_has_its_own_square(manifest: Manifest, tmp_path: Path) -> None:
    rows = [
        replace(manifest.clips[0], square=(0, 24, 24)),
        manifest.clips[1],
        replace(manifest.clips[2], square=(1, 25, 24)),
    ]
    path = write_manifest(tmp_path / "m.csv", rows)
    own, spec = read_manifest(path), InputSpec(image_size=24)
    kept = write_shards(own, tmp_path / "kept", storage=StorageFormat(square=(24, 0, 24)))
    assert [(reject.clip_id, reject.reason) for reject in kept.rejected] == [("clip002", "square_outside")]
    source, direct = ShardSource(tmp_path / "kept"), ManifestSource(own)
    squares = {source.info(i).clip_id: source.read(i).square for i in range(2)}
    assert squares == {"clip000": (0, 24, 24), "clip001": (24, 0, 24)}
    assert direct.read(0).square == (0, 24, 24)
    assert verify_shards(tmp_path / "kept", decode=2).problems == ()
    write_shards(own, tmp_path / "stored", storage=replace(H264, size=24))
    stored = ShardSource(tmp_path / "stored")
    number = next(i for i in range(2) if stored.info(i).clip_id == "clip000")
    assert stored.read(number).square is None
    clips = [
        source.read(next(i for i in range(2) if source.info(i).clip_id == "clip000")),
        direct.read(0),
        stored.read(number),
    ]
    pictures = [
        decode_clip(c.video, spec=spec, position=0.0, square=c.square, name="x").video.astype(int) for c in clips
    ]
    assert (pictures[0] == pictures[1]).all()
    assert np.abs(pictures[0] - pictures[2]).mean() < 12
    centre = decode_clip(clips[0].video, spec=spec, position=0.0, name="x").video
    assert np.abs(pictures[0] - centre).mean() > 20


def test_a_square_that_cannot_be_is_refused_with_the_table(tmp_path: Path) -> None:
    clip = PackedClip(clip_id="c", members={"mp4": (512, 10), "json": (1536, 2)}, square=(0, -1, 5))
    with pytest.raises(ValueError, match=r"clip 'c': a square of \[0, -1, 5\] cannot be"):
        ClipTable.build([[clip]]).check([4096])


def test_parts_and_restarts_of_re_encoded_shards_agree(manifest: Manifest, tmp_path: Path) -> None:
    def index(folder: Path, **options: object) -> str:
        write_shards(manifest, folder, storage=H264, shard_mb=0.1, **options)  # type: ignore[arg-type]
        return (folder / "index.json").read_text() if (folder / "index.json").exists() else ""

    whole = index(tmp_path / "whole")
    assert len(json.loads(whole)["shards"]) > 3
    assert index(tmp_path / "parts", part=(2, 2)) == ""
    assert index(tmp_path / "parts", part=(1, 2)) == whole
    (tmp_path / "whole" / "shard-000001.tar").unlink()
    (tmp_path / "whole" / "index.json").unlink()
    assert index(tmp_path / "whole", workers=2) == whole
    with pytest.raises(ValueError, match=r"storage: .*'h264'.* there, .*'jpeg'.* now"):
        write_shards(manifest, tmp_path / "whole", storage=JPEG, shard_mb=0.1)


def test_the_first_estimate_of_sizes_stays(manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(manifest, tmp_path / "out", storage=JPEG, shard_mb=0.3, part=(1, 2))
    monkeypatch.setattr(shard_writer, "estimate_sizes", lambda *_: pytest.fail("estimated again"))
    assert write_shards(manifest, tmp_path / "out", storage=JPEG, shard_mb=0.3, part=(2, 2)).index is not None


def test_shards_of_re_encoded_clips_come_near_the_wanted_size(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path / "corpus", 24)
    for number, rows in enumerate((manifest.clips, [replace(c, start_s=0.0, end_s=2.0) for c in manifest.clips])):
        path = write_manifest(tmp_path / "corpus" / f"m{number}.csv", rows)
        index = write_shards(read_manifest(path), tmp_path / f"out{number}", storage=JPEG, shard_mb=1.0).index
        assert index is not None
        sizes = [shard.bytes for shard in index.shards]
        assert len(sizes) > 2
        assert all(0.75e6 < size < 1.15e6 for size in sizes[:-1]), sizes


def test_estimates_are_made_of_seconds_or_of_source_bytes() -> None:
    estimate = SizeEstimate(bytes_per_second=1000, bytes_per_source_byte=0.5)
    whole = Clip(clip_id="a", video=Path("a.mp4"))
    assert estimate.bytes_of(whole, 6000) == 3000
    assert estimate.bytes_of(replace(whole, start_s=1.5), 6000) == 3000
    assert estimate.bytes_of(replace(whole, end_s=4.0), 6000) == 4000
    assert estimate.bytes_of(replace(whole, start_s=1.5, end_s=4.0), 6000) == 2500


def test_quality_is_measured_on_a_sample_that_depends_on_ids_alone(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(clip_bytes())
    clips = tuple(Clip(clip_id=f"c{i}", video=tmp_path / "a.mp4") for i in range(200))
    one = plan_shards(Manifest(path=tmp_path, clips=clips), shard_bytes=10**6, seed=0, storage=H264)
    other = plan_shards(Manifest(path=tmp_path, clips=clips[::-1]), shard_bytes=10**7, seed=1, storage=JPEG)
    assert one.measured == other.measured
    assert len(one.measured) == 64
    assert not plan_shards(Manifest(path=tmp_path, clips=clips), shard_bytes=10**6, seed=0).measured


def test_a_clip_that_cannot_be_encoded_is_rejected(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shard_pack.encode_clip

    def fails(*args: object, name: str, **options: object) -> object:
        if name.endswith("clip002.mp4"):
            raise av.error.InvalidDataError(1, "no such luck")
        return real(*args, name=name, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(shard_pack, "encode_clip", fails)
    report = write_shards(manifest, tmp_path / "out", storage=H264)
    rejects = {reject.clip_id: reject for reject in report.rejected}
    assert rejects["clip002"].reason == "encode_failed"
    assert "no such luck" in rejects["clip002"].detail
    assert report.packed == 7


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder], check=False).returncode
    ):
        pytest.skip("a small file system can be mounted by root alone")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_stops_the_writing_and_finished_shards_stay(
    manifest: Manifest, small_disk: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["shards", "write", str(manifest.path), str(small_disk / "out"), "--format", "jpeg", "--size", "48"]
    command += ["--shard-mb", "0.15", "--workers", str(workers)]
    assert main(command) == 2
    message = capsys.readouterr().err
    assert "no space left while writing" in message
    assert "finished shards stay" in message
    finished = sorted((small_disk / "out").glob("*.tar"))
    assert finished
    assert not list((small_disk / "out").glob(".*.tmp"))
    before = [tar.read_bytes() for tar in finished]
    subprocess.run(["mount", "-o", "remount,size=40m", small_disk], check=True)
    assert main(command) == 0
    assert [tar.read_bytes() for tar in finished] == before
    assert "shards were finished before" in capsys.readouterr().out
    assert verify_shards(small_disk / "out").problems == ()


def test_verify_compares_checksums_of_clips(encoded: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoded, tmp_path / "shards"))

    def edit(clips: list[PackedClip]) -> None:
        clips[1] = replace(clips[1], crc32=1)

    edit_clips(folder, edit)
    problems = verify_shards(folder, decode=0).problems
    assert len(problems) == 1
    assert "the index says 1;" in problems[0]


def test_commands_of_re_encoded_shards(manifest: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    command = ["shards", "write", str(manifest.path), out, "--split", "train", "--workers", "1", "--size", "48"]
    assert main([*command, "--format", "h264", "--square", "4,4,40"]) == 0
    assert "quality: luma PSNR" in capsys.readouterr().out
    assert main(["shards", "info", out, "--sheet", str(tmp_path / "sheet.png"), "--sheet-clips", "5"]) == 0
    output = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "h264 48x48 + aac" in output
    assert "7 mp4 of" in output
    assert "luma PSNR" in output
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (1320, 2 * 158 + 8)
    assert ShardIndex.read(out)[0].made_by["hicmae"]
    for wrong, message in (
        (["--square", "middle"], "neither 'centre' nor"),
        (["--square", "1,2"], "neither 'centre' nor"),
        (["--format", "gif"], "invalid choice"),
    ):
        with pytest.raises(SystemExit):
            main([*command, *wrong])
        assert message in capsys.readouterr().err
    # All but the last of a permutation are not "-1 clips".
    for counting in (["info", out, "--sheet", str(tmp_path / "x.png"), "--sheet-clips"], ["verify", out, "--decode"]):
        with pytest.raises(SystemExit):
            main(["shards", *counting, "-1"])
        assert "'-1' is not a number of clips" in capsys.readouterr().err
    for size in ("0", "nan", "inf"):
        assert main([*command, "--shard-mb", size]) == 2
        assert f"shard_mb={size} must be positive" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["shards", "info", out, "--sheet", out, "--sheet-clips", "1"]) == 2
    assert main(["shards", "write", str(manifest.path), str(tmp_path / "file")]) == 2
    assert "Not a directory" in capsys.readouterr().err
    assert main([*command, "--format", "h264", "--audio", "original"]) == 2
    assert "does not go with video 'h264'" in capsys.readouterr().err
    assert main([*command, "--format", "h264", "--square", "0,0,0"]) == 2
    assert "must be (top, left, side)" in capsys.readouterr().err


def test_a_process_that_is_told_to_stop_gives_up_after_a_clip(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter, stop = multiprocessing.Value("q", 0), multiprocessing.Event()
    stop.set()
    monkeypatch.setattr(shard_writer, "_clips_done", counter)
    monkeypatch.setattr(shard_writer, "_stop", stop)
    task = shard_writer._Task(
        folder=tmp_path, number=0, clips=manifest.clips, digest="", storage=StorageFormat(), measured=frozenset()
    )
    with pytest.raises(shard_writer._Stopped):
        shard_writer._write_shard_counting(task)
    assert counter.value == 1
    assert not list(tmp_path.iterdir())
