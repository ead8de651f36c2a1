from __future__ import annotations

import csv
import io
import itertools
import json
import shutil
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hicmae.cli import main
from hicmae.data import shard_pack, shard_writer
from hicmae.data.clip_table import ClipTable
from hicmae.data.manifest import Clip, Manifest, read_manifest, write_manifest
from hicmae.data.packed import PackedClip
from hicmae.data.shard_foreign import index_foreign
from hicmae.data.shard_index import ShardIndex
from hicmae.data.shard_plan import plan_shards
from hicmae.data.shard_verify import verify_shards
from hicmae.data.shard_writer import write_shards
from hicmae.data.source import ShardSource
from hicmae.data.tar_members import scan_tar
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
