"""Two processes over shards of uneven length: they end every epoch together, whatever lies in the shards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from hicmae.data.manifest import read_manifest, write_manifest
from hicmae.data.shard_source import ShardSource
from hicmae.data.shard_writer import write_shards
from tests.corpus import make_corpus
from tests.record_stream import read
from tests.test_stream import make_stream

LENGTHS = (9, 1, 5, 2, 7, 1, 4)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Seven folders of one shard each, together seven shards of uneven length."""
    folder = tmp_path_factory.mktemp("uneven")
    clips = make_corpus(folder / "corpus", sum(LENGTHS)).clips
    folders = []
    for number, length in enumerate(LENGTHS):
        first = sum(LENGTHS[:number])
        manifest = read_manifest(write_manifest(folder / f"{number}.csv", clips[first : first + length]))
        write_shards(manifest, folder / f"shards{number}")
        folders.append(folder / f"shards{number}")
    return folders


@pytest.mark.slow
def test_two_processes_with_seven_uneven_shards_end_an_epoch_together(uneven: list[Path], tmp_path: Path) -> None:
    assert ShardSource(uneven).group_sizes == LENGTHS
    command = [sys.executable, "-m", "tests.record_stream", ",".join(map(str, uneven)), str(tmp_path),
               "--batch_size=3", "--max_epochs=3", "--ranks=2", "--num_workers=2"]  # fmt: skip
    subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, timeout=300)
    ranks = [read(tmp_path / f"part0_rank{rank}.jsonl") for rank in (0, 1)]
    batches = sum(LENGTHS) // 6
    for epoch in range(3):
        own = [[line for line in lines if line["epoch"] == epoch] for lines in ranks]
        assert [len(lines) for lines in own] == [batches, batches]
        seen = Counter(clip for lines in own for line in lines for clip in line["clips"])
        assert set(seen.values()) == {1}
        assert len(seen) == batches * 6
    left_out = [
        {f"clip{i:03d}" for i in range(sum(LENGTHS))}
        - {clip for lines in ranks for line in lines if line["epoch"] == epoch for clip in line["clips"]}
        for epoch in range(3)
    ]
    assert left_out[0] != left_out[1] or left_out[1] != left_out[2]  # the remainder is another one each epoch


def test_one_shard_is_enough_for_two_processes_unless_it_has_too_few_clips(uneven: list[Path]) -> None:
    one = ShardSource(uneven[0])
    assert one.group_sizes == (9,)
    ranks = [list(make_stream(one, batch_size=2, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [len(batches) for batches in ranks] == [2, 2]
    with pytest.raises(ValueError, match=r"9 clips are too few: 2 ranks with batches of 5 need at least 10.*no limit"):
        make_stream(one, batch_size=5, rank=0, world_size=2)
