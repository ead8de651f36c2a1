"""What a run says of its data: counted over epochs, through interruptions, and over ranks."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hicmae.data.shard_source import ShardSource
from pretrain.__main__ import main
from tests.test_pretrain import arguments, shards  # noqa: F401  (a fixture)

TOLD = ("clips", "video_hours", "audio_hours", "read_gb", "skipped", "skipped_checksum_mismatch")


@pytest.fixture(scope="module")
def damaged(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """24 clips, one of which has changed since it was written."""
    folder = Path(shutil.copytree(shards, tmp_path_factory.mktemp("damaged") / "shards"))
    source = ShardSource(folder)
    tar, video = Path(source.shard_names[source.shard_of(0)]), source.read(0).video
    data = bytearray(tar.read_bytes())
    assert video is not None
    data[data.index(video) + len(video) // 2] ^= 1
    tar.write_bytes(data)
    return folder


def told(root: Path) -> list[dict[str, float]]:
    """One line for each epoch, resumed parts included."""
    found = []
    for path in sorted(root.glob("logs/version_*/metrics.csv"), key=lambda p: int(p.parent.name.split("_")[1])):
        with path.open() as file:
            rows = [row for row in csv.DictReader(file) if row.get("data_epoch/clips")]
        found += [{name: float(value) for name, value in row.items() if value} for row in rows]
    return found


def numbers(line: dict[str, float]) -> list[float]:
    return [line.get(f"data_{part}/{name}", 0.0) for part in ("epoch", "total") for name in TOLD]


@pytest.fixture(scope="module")
def undisturbed(damaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "undisturbed"
    more = ("--data.max_skip_fraction=0.5", "--data.slowest_shards=2")
    assert main(arguments(damaged, root, *more)) == 0
    return root


def test_every_epoch_and_the_whole_run_are_told(undisturbed: Path, damaged: Path) -> None:
    first, second = told(undisturbed)
    assert (first["data_epoch/clips"], second["data_epoch/clips"], second["data_total/clips"]) == (24, 24, 48)
    assert first["data_epoch/video_hours"] * 3600 == pytest.approx(24 * 2.56)
    assert 0 < first["data_epoch/audio_hours"] * 3600 <= 24 * 2.6
    assert second["data_total/video_hours"] == pytest.approx(2 * first["data_epoch/video_hours"])
    assert [line["data_epoch/skipped_checksum_mismatch"] for line in (first, second)] == [1, 1]
    assert second["data_total/skipped"] == 2
    stored = sum(path.stat().st_size for path in damaged.glob("*.tar"))
    assert 0.2 * stored < first["data_epoch/read_gb"] * 1e9 < 1.5 * stored
    assert 0 <= first["data_epoch/wait_percent"] <= 100
    assert first["data_epoch/read_mb_per_s"] > 0


def test_an_interrupted_run_tells_the_same(undisturbed: Path, damaged: Path, tmp_path: Path) -> None:
    more = ("--data.max_skip_fraction=0.5",)
    assert main(arguments(damaged, tmp_path, *more, "--trainer.max_steps=4")) == 0
    with next(tmp_path.glob("logs/version_0/metrics.csv")).open() as file:
        (part,) = (row for row in csv.DictReader(file) if row.get("data_total/clips"))
    assert (part["data_total/clips"], part.get("data_epoch/clips")) == ("16.0", None)  # no whole epoch, yet told
    assert main(arguments(damaged, tmp_path, *more, "--trainer.max_steps=8", "--ckpt_path=last")) == 0
    assert main(arguments(damaged, tmp_path, *more, "--ckpt_path=last")) == 0
    assert numbers(told(tmp_path)[-1]) == pytest.approx(numbers(told(undisturbed)[-1]))


def test_the_slowest_shards_are_listed_on_demand(undisturbed: Path, damaged: Path) -> None:
    with (undisturbed / "data" / "slowest_shards.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "0", "1", "1"]
    assert {Path(row["shard"]).name for row in rows} <= {path.name for path in damaged.glob("*.tar")}
    costs = [float(row["read_ms_per_clip"]) + float(row["decode_ms_per_clip"]) for row in rows]
    assert costs[0] >= costs[1] > 0


def test_ranks_are_added_up(undisturbed: Path, damaged: Path, tmp_path: Path) -> None:
    command = arguments(damaged, tmp_path, "--data.max_skip_fraction=0.5", "--data.batch_size=2",
                        "--trainer.devices=2", "--trainer.strategy=ddp")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pretrain", *command], env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert [numbers(line)[:6] for line in told(tmp_path)] == [
        pytest.approx(numbers(line)[:6]) for line in told(undisturbed)
    ]
    assert "data of epoch 1: 24 clips" in done.stderr
