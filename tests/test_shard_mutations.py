"""Damaged shard folders: a clear error, counted skips, or the very same clips; never a hang, a crash or wrong data."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from hicmae.config import InputSpec, ModelConfig
from hicmae.data.augment import PretrainingDraws
from hicmae.data.batch import ClipBatch
from hicmae.data.loader import LoaderSettings
from hicmae.data.shard_index import ShardIndex
from hicmae.data.shard_source import ShardSource
from hicmae.data.shard_verify import verify_shards
from hicmae.data.shard_writer import write_shards
from hicmae.data.source import ClipInfo, ClipUnreadableError, EncodedClip
from hicmae.data.stream import TrainStream
from tests.corpus import make_corpus
from tests.shard_mutations import MARKER, OTHER, Mutation, mutations
from tests.test_stream import tensors

MODEL = ModelConfig.preset("micro", image_size=32, num_frames=4)
CLIPS = 8
LIMIT_S = 20
ALL = list(mutations())
REMEDY = re.compile(r"again|copy|remove|install|write|drop|name |use |verify")


@dataclass(frozen=True)
class Pristine:
    """The folder before any damage, and what it gives."""

    folder: Path
    stored: dict[str, tuple[ClipInfo, EncodedClip]]
    delivered: dict[str, dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Pristine:
    base = tmp_path_factory.mktemp("mutations")
    write_shards(make_corpus(base / "corpus", CLIPS), base / "shards", shard_mb=0.07)
    write_shards(make_corpus(base / "corpus of others", 5), base / OTHER, shard_mb=0.1, seed=3)
    source = ShardSource(base / "shards")
    assert len(source.group_sizes) >= 3
    stored = {source.info(i).clip_id: (source.info(i), source.read(i)) for i in range(len(source))}
    delivered = {clip_id: rows for batch in stream_of(source) for clip_id, rows in rows_of(batch)}
    assert len(delivered) == CLIPS
    return Pristine(base / "shards", stored, delivered)


def stream_of(source: ShardSource) -> TrainStream:
    """One epoch in batches of one clip, and as many skips as there may be."""
    return TrainStream(
        source, spec=InputSpec.for_model(MODEL), draws=PretrainingDraws(model=MODEL),
        loader=LoaderSettings(batch_size=1, seed=5, max_skip_fraction=1.0),
    )  # fmt: skip


def rows_of(batch: ClipBatch) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """What a batch holds of each clip; its number in the source is not of its making."""
    for row, clip_id in enumerate(batch.clip_ids):
        yield clip_id, {name: value[row] for name, value in tensors(batch) if name != "index"}


@contextmanager
def time_limit() -> Iterator[None]:
    def ring(*_: Any) -> None:
        pytest.fail(f"hung for {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def assert_clear(error: Exception) -> None:
    """It names a file and says what to do."""
    message = str(error)
    assert not isinstance(error, RecursionError)
    assert re.search(r"\.tar|index\.json|clips\.arrow|/shards", message), message
    assert REMEDY.search(message), message


def test_there_are_enough() -> None:
    assert len(ALL) >= 150
    assert len({mutation.name for mutation in ALL}) == len(ALL)


@pytest.mark.parametrize("mutation", ALL, ids=[mutation.name.replace(" ", "-") for mutation in ALL])
def test_damage(pristine: Pristine, mutation: Mutation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pristine.folder, tmp_path / "shards")
    shutil.copytree(pristine.folder.parent / OTHER, tmp_path / OTHER)
    with time_limit():
        mutation.apply(tmp_path / "shards")
        intact = _use(tmp_path / "shards", pristine, mutation)
        problems = _problems(tmp_path / "shards") or _problems(tmp_path / "shards", decode=2 * CLIPS)
    assert intact or problems, "what stops or skips in training is not found by verify_shards"
    assert not list(tmp_path.rglob(MARKER))
    assert not (tmp_path.parent / "outside.mp4").exists()


def _use(folder: Path, pristine: Pristine, mutation: Mutation) -> bool:
    """Whether the folder gives all clips as before; anything else has to be an error or a counted skip."""
    try:
        source = ShardSource(folder)
    except (ValueError, FileNotFoundError) as error:
        assert_clear(error)
        return False
    unreadable, mixed_up = set(), set()
    for number in range(len(source)):
        info = source.info(number)
        try:
            clip = source.read(number)
        except ClipUnreadableError as error:
            assert_clear(error)
            unreadable.add(info.clip_id)
            continue
        before = pristine.stored.get(info.clip_id)
        if not mutation.rewritten:
            assert before == (info, clip)
        elif before is not None and clip.video != before[1].video:
            mixed_up.add(info.clip_id)
    stream = stream_of(source)
    delivered = set()
    try:
        for batch in stream:
            for clip_id, rows in rows_of(batch):
                delivered.add(clip_id)
                before_rows = pristine.delivered.get(clip_id)
                if not mutation.rewritten:
                    assert before_rows is not None
                    assert all(torch.equal(value, before_rows[name]) for name, value in rows.items())
    except RuntimeError as error:
        if "could not be used" not in str(error):
            raise
        assert_clear(error)
        return False
    everything = {source.info(i).clip_id for i in range(len(source))}
    skipped = set(stream.skipped_clips)
    assert unreadable <= skipped
    assert delivered | skipped == everything
    return not skipped and not mixed_up and everything == set(pristine.stored)


def _problems(folder: Path, decode: int = 1) -> list[str]:
    try:
        return list(verify_shards(folder, decode=decode).problems)
    except (ValueError, FileNotFoundError) as error:
        assert_clear(error)
        return [str(error)]


def test_what_was_written_is_found_whole(pristine: Pristine) -> None:
    """The checks above must not pass because everything is a problem."""
    assert _use(pristine.folder, pristine, ALL[0])
    assert _problems(pristine.folder) == []
    index, _ = ShardIndex.read(pristine.folder)
    assert len(index.clips) == CLIPS
