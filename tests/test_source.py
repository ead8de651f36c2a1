from __future__ import annotations

import logging
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hicmae.data.clip_table import ClipTable
from hicmae.data.manifest import Manifest
from hicmae.data.shard_index import ShardIndex
from hicmae.data.shard_source import ShardSource
from hicmae.data.shard_writer import write_shards
from hicmae.data.source import ClipSource, ClipUnreadableError, ManifestSource, SubsetSource, select_split
from tests.corpus import make_corpus


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 12)


@pytest.fixture(scope="module")
def packed(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "shards"
    write_shards(manifest, folder, shard_mb=0.07)
    return folder


@pytest.fixture
def shards(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "shards"))


def test_both_kinds_give_the_same_clips(manifest: Manifest, packed: Path) -> None:
    by_file, by_shard = ManifestSource(manifest), ShardSource(packed)
    assert isinstance(by_file, ClipSource)
    assert isinstance(by_shard, ClipSource)
    assert sum(by_shard.group_sizes) == len(by_shard) == sum(by_file.group_sizes) == len(by_file) == 12
    assert len(by_shard.group_sizes) > 2
    files = {by_file.info(i).clip_id: (by_file.info(i), by_file.read(i)) for i in range(12)}
    stored = {by_shard.info(i).clip_id: (by_shard.info(i), by_shard.read(i)) for i in range(12)}
    assert files == stored


@pytest.mark.parametrize("kind", ["manifest", "shards", "subset"])
def test_sources_travel_to_other_processes(manifest: Manifest, packed: Path, kind: str) -> None:
    source: ClipSource = {
        "manifest": ManifestSource(manifest),
        "shards": ShardSource(packed),
        "subset": SubsetSource(ShardSource(packed), [3, 1, 5], "three"),
    }[kind]
    first = source.read(0)  # with a file open
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301
    if isinstance(copy, ShardSource):
        assert len(copy._reader) == 0  # numbers of open files mean nothing elsewhere
    assert copy.read(0) == first
    assert copy.fingerprint == source.fingerprint
    assert copy.group_sizes == source.group_sizes


def test_open_files_are_limited(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hicmae.data.shard_source._OPEN_FILES", 2)
    source = ShardSource(packed)
    for _ in range(2):
        for i in range(len(source)):
            source.read(i)
            assert len(source._reader) <= 2


def test_fingerprint_follows_the_clips(manifest: Manifest, packed: Path, shards: Path) -> None:
    assert ShardSource(packed).fingerprint == ShardSource(shards / "index.json").fingerprint
    assert ManifestSource(manifest).fingerprint != ManifestSource(manifest, "train").fingerprint
    index, _ = ShardIndex.read(shards)
    clips = list(index.clips.clips())
    groups = [[clip for clip, own in zip(clips, index.clips.shard, strict=True) if own == n] for n in (1, 0)]
    swapped = replace(index, shards=(index.shards[1], index.shards[0]), clips=ClipTable.build(groups))
    swapped.write(shards)
    assert ShardSource(packed).fingerprint != ShardSource(shards).fingerprint


def test_select_split_keeps_shards_and_order(packed: Path) -> None:
    source = ShardSource(packed)
    train = select_split(source, "train")
    ids = [source.info(i).clip_id for i in range(12)]
    kept = [train.info(i).clip_id for i in range(len(train))]
    assert kept == [name for name in ids if int(name[-3:]) % 4 != 3]
    assert [train.read(i).clip_id for i in range(len(train))] == kept
    assert sum(train.group_sizes) == len(train) == 9
    assert min(train.group_sizes) > 0
    with pytest.raises(ValueError, match=r"no clip has split 'dev'; splits there are: test \(3\), train \(9\)"):
        select_split(source, "dev")
    with pytest.raises(ValueError, match="no clips are left"):
        SubsetSource(source, [], "fold 1")
    with pytest.raises(ValueError, match=r"0\.\.11"):
        SubsetSource(source, [12], "fold 1")


def test_missing_and_foreign_tars_are_all_named_at_the_start(shards: Path) -> None:
    (shards / "shard-000000.tar").unlink()
    with (shards / "shard-000001.tar").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match="shards verify") as caught:
        ShardSource(shards)
    assert "shard-000000.tar is missing" in str(caught.value)
    assert "shard-000001.tar has" in str(caught.value)


def test_a_tar_cut_in_half_is_reported_once_and_the_rest_is_used(
    shards: Path, packed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = ShardSource(packed)
    tar = shards / "shard-000001.tar"
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    with caplog.at_level(logging.WARNING):
        source = ShardSource(shards)
        lost = []
        for i in range(len(source)):
            try:
                assert source.read(i) == whole.read(i)
            except ClipUnreadableError:
                lost.append(i)
        with pytest.raises(ClipUnreadableError, match="beyond the end") as caught:
            source.read(lost[0])
    assert caught.value.reason == "shard_truncated"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301
    first = source.group_sizes[0]
    assert 0 < len(lost) < source.group_sizes[1]
    assert all(first <= i < first + source.group_sizes[1] for i in lost)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    count = source.group_sizes[1] - len(lost)
    assert f"{count} of its {source.group_sizes[1]} clips can be read" in caplog.text
    assert "shard-000001.tar is cut off" in caplog.text


def test_bytes_that_changed_since_writing_are_not_handed_out(shards: Path) -> None:
    source = ShardSource(shards)
    before = source.read(0)
    tar = shards / "shard-000000.tar"
    data = bytearray(tar.read_bytes())
    assert before.video is not None
    data[data.index(before.video) + len(before.video) // 2] ^= 1
    tar.write_bytes(data)
    with pytest.raises(ClipUnreadableError, match="CRC-32 differs") as caught:
        source.read(0)
    assert caught.value.reason == "checksum_mismatch"
    assert source.read(1).video


def test_clips_know_their_shard(packed: Path) -> None:
    source = ShardSource(packed)
    shards = [source.shard_of(i) for i in range(len(source))]
    assert [shards.count(n) for n in range(len(source.shard_names))] == list(source.group_sizes)
    assert shards == sorted(shards)
    assert source.dataset_sizes == (12,)
    kept = [i for i in range(12) if i % 3]
    subset = SubsetSource(source, kept, "two thirds")
    assert [subset.shard_of(i) for i in range(8)] == [shards[i] for i in kept]
    assert subset.shard_names == source.shard_names
    assert subset.dataset_sizes == (8,)
    with pytest.raises(IndexError):
        source.info(12)


def test_a_table_changed_under_a_job_is_noticed(shards: Path) -> None:
    data = pickle.dumps(ShardSource(shards))
    with (shards / "clips.arrow").open("ab") as file:
        file.write(bytes(8))
    with pytest.raises(ValueError, match="changed while a job was reading it"):
        pickle.loads(data)  # noqa: S301


def test_a_tar_without_a_whole_clip_is_refused(shards: Path) -> None:
    (shards / "shard-000001.tar").write_bytes(b"x" * 700)
    with pytest.raises(ValueError, match=r"none of its .* clips is whole"):
        ShardSource(shards)


def test_files_that_go_after_the_start_have_a_reason(tmp_path: Path) -> None:
    source = ManifestSource(make_corpus(tmp_path, 1))
    (tmp_path / "clip000.mp4").unlink()
    with pytest.raises(ClipUnreadableError, match="has gone") as caught:
        source.read(0)
    assert caught.value.reason == "missing_file"


def test_several_folders_are_one_source_and_ids_stay_unique(packed: Path, tmp_path: Path) -> None:
    other = make_corpus(tmp_path / "other", 3)
    renamed = Manifest(path=other.path, clips=tuple(_renamed(clip) for clip in other.clips))
    write_shards(renamed, tmp_path / "more")
    source = ShardSource([packed, tmp_path / "more"])
    assert len(source) == 15
    assert source.dataset_sizes == (12, 3)
    assert SubsetSource(source, [1, 2, 13], "some").dataset_sizes == (2, 1)
    assert source.read(14).clip_id.startswith("other")
    with pytest.raises(ValueError, match="clip ids occur twice: clip000"):
        ShardSource([packed, packed])
    with pytest.raises(ValueError, match="no shard folder given"):
        ShardSource([])


def _renamed(clip):
    return replace(clip, clip_id=clip.clip_id.replace("clip", "other"))
