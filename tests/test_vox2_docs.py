"""The how-to for VoxCeleb2, run on a miniature of it."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from hicmae.cli import build_parser, main
from hicmae.data.shard_index import ShardIndex
from tests.media_files import make_clip

PAGE = (Path(__file__).parent.parent / "docs" / "vox2.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^(?:time )?hicmae (.*)$", PAGE, flags=re.MULTILINE)


@pytest.fixture
def vox2(tmp_path: Path) -> Path:
    picture = make_clip(io.BytesIO(), seconds=1.0, size=(224, 224), with_audio=False)
    sound = make_clip(io.BytesIO(), seconds=1.0, with_video=False, container="ipod")
    for number in range(4):
        for tree, name, data in (("mp4", "mp4", picture), ("aac", "m4a", sound)):
            file = tmp_path / "dev" / tree / f"id{number // 2:05d}" / "a-b_c" / f"{number:05d}.{name}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    return tmp_path


def test_every_command_parses() -> None:
    assert len(COMMANDS) >= 7
    for command in COMMANDS:
        words = command.replace("$SLURM_ARRAY_TASK_ID", "3").split()
        assert build_parser(words).parse_args(words).command == words[0]


def test_the_array_of_jobs_on_a_miniature(vox2: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = next(command for command in COMMANDS if command.startswith("manifest tree"))
    assert main(tree.replace("/data/vox2", str(vox2)).split()) == 0
    (write,) = [command for command in COMMANDS if "$SLURM_ARRAY_TASK_ID/40" in command]
    write = write.replace("/data/vox2", str(vox2)).replace("--workers 8", "--workers 1") + " --shard-mb 0.001"
    for part in (3, 1, 2):
        assert main(write.replace("$SLURM_ARRAY_TASK_ID/40", f"{part}/3").split()) == 0
    capsys.readouterr()
    index, _ = ShardIndex.read(vox2 / "shards")
    assert len(index.shards) == len(index.clips) == 4
    assert {index.clips.subject(row) for row in range(4)} == {"id00000", "id00001"}
    assert all(index.clips.values("has_audio"))
    assert index.storage.square == (0, 32, 160)
    verify = next(command for command in COMMANDS if command.startswith("shards verify"))
    assert main(verify.replace("/data/vox2", str(vox2)).split()) == 0
    assert "4 shards, 4 clips, 4 decoded: 0 problems" in capsys.readouterr().out


def test_the_arithmetic_of_the_page() -> None:
    seconds = 1_092_009 * 7.8
    rows = re.findall(r"^\| (?:h264|jpeg) .*$", PAGE, flags=re.MULTILINE)
    assert len(rows) == 5
    for row in rows:
        megabytes, kilobytes, size, processor, hours, _ = (cell.strip() for cell in row.split("|")[2:8])
        rate = float(megabytes.split()[0]) / 1440 * 1000
        assert rate == pytest.approx(float(kilobytes.split()[0]), abs=0.06)
        value, unit = size.split()
        assert rate * seconds / 1e6 == pytest.approx(float(value) * {"GB": 1, "TB": 1000}[unit], rel=0.006)
        assert float(processor.split()[0]) / 1440 * seconds / 3600 == pytest.approx(float(hours.split()[0]), rel=0.05)
