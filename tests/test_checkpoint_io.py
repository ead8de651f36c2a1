"""Checkpoint files: whole or not there, on a full disk, through a kill, and under a reader's eyes."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hicmae.training.checkpoint_io import AtomicCheckpointIO, CheckpointNotWrittenError, find_damage, point_to
from tests.test_pretrain import arguments, main, shards  # noqa: F401  the fixture of that corpus

CHECKPOINT = {"state_dict": {"weight": torch.arange(1000.0), "bias": torch.ones(3)}, "global_step": 3}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read_back_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "one.ckpt"
    AtomicCheckpointIO().save_checkpoint(CHECKPOINT, path)
    loaded = AtomicCheckpointIO().load_checkpoint(path)
    assert torch.equal(loaded["state_dict"]["weight"], CHECKPOINT["state_dict"]["weight"])
    assert loaded["global_step"] == 3
    assert names(path.parent) == ["one.ckpt"]
    AtomicCheckpointIO().remove_checkpoint(path)
    assert names(path.parent) == []


def test_the_file_and_its_folder_are_synced_before_and_after_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[bool, list[str]]] = []
    genuine = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").resolve().is_dir(), names(tmp_path)))
        genuine(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    AtomicCheckpointIO().save_checkpoint(CHECKPOINT, tmp_path / "one.ckpt")
    assert synced == [(False, [".one.ckpt.tmp"]), (True, ["one.ckpt"])]


@pytest.mark.parametrize("failing", ["write", "fsync", "rename"])
def test_a_failure_leaves_the_older_file_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "one.ckpt"
    AtomicCheckpointIO().save_checkpoint(CHECKPOINT, path)
    before = path.read_bytes()

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    owner, name = {"write": (torch, "save"), "fsync": (os, "fsync"), "rename": (Path, "replace")}[failing]
    monkeypatch.setattr(owner, name, full)
    with pytest.raises(CheckpointNotWrittenError, match=r"one\.ckpt: No space left on device; it needs 0\.0 MB and"):
        AtomicCheckpointIO().save_checkpoint(CHECKPOINT, path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert names(tmp_path) == ["one.ckpt"]


def test_a_kill_while_writing_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "one.ckpt"
    AtomicCheckpointIO().save_checkpoint(CHECKPOINT, path)
    before = path.read_bytes()
    script = (
        "import os, signal, torch; from hicmae.training.checkpoint_io import AtomicCheckpointIO\n"
        "genuine = torch.save\n"
        "def save(value, file):\n"
        "    genuine(value, file); file.flush(); file.truncate(5000); os.kill(os.getpid(), signal.SIGKILL)\n"
        "torch.save = save\n"
        f"AtomicCheckpointIO().save_checkpoint({{'w': torch.zeros(9999)}}, {str(path)!r})\n"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    assert path.read_bytes() == before
    assert names(tmp_path) == [".one.ckpt.tmp", "one.ckpt"]
    assert find_damage(tmp_path / ".one.ckpt.tmp") is not None


def test_every_altered_byte_of_the_weights_is_found(tmp_path: Path) -> None:
    """Bytes are altered all over the file; those that are not found lie in padding, and the content is as written."""
    path = tmp_path / "one.ckpt"
    AtomicCheckpointIO().save_checkpoint(CHECKPOINT, path)
    assert find_damage(path) is None
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        expected = {name: archive.read(name) for name in archive.namelist()}
    missed = 0
    for at in range(0, len(content), 23):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        if find_damage(path) is None:
            missed += 1
            with zipfile.ZipFile(path) as archive:
                assert [archive.read(name) for name in archive.namelist()] == list(expected.values()), at
    assert missed < len(content) / 23 / 2
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert find_damage(path) is not None, length
        with pytest.raises(ValueError, match=r"one\.ckpt is damaged .* --ckpt_path auto"):
            AtomicCheckpointIO().load_checkpoint(path)


class Code:
    """Runs something when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("made_by_a_checkpoint",)


def test_a_checkpoint_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"code": Code()}, "bad.ckpt")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        AtomicCheckpointIO().load_checkpoint("bad.ckpt", weights_only=False)
    assert names(tmp_path) == ["bad.ckpt"]


def test_a_missing_checkpoint_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.ckpt; --ckpt_path auto"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "absent.ckpt")


def test_a_link_is_moved_from_file_to_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
        point_to(tmp_path / "last", tmp_path / name)
        assert (tmp_path / "last").read_text() == name
    assert names(tmp_path) == ["last", "one", "two"]


# ---------------------------------------------------------------- a disk that is full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip(f"needs the right to mount a small file system: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_said_with_numbers_and_costs_nothing(small_disk: Path) -> None:
    path = small_disk / "one.ckpt"
    AtomicCheckpointIO().save_checkpoint({"weight": torch.zeros(1_000_000)}, path)
    before = path.read_bytes()
    with pytest.raises(CheckpointNotWrittenError, match=r"needs 12\.0 MB and [34]\.\d MB are free"):
        AtomicCheckpointIO().save_checkpoint({"weights": [torch.zeros(3_000_000)]}, path)
    assert path.read_bytes() == before
    assert names(small_disk) == ["one.ckpt"]


@pytest.mark.slow
def test_two_processes_on_a_full_disk_end_together(
    shards: Path,  # noqa: F811
    small_disk: Path,
) -> None:
    """Rank 0 alone writes; the other would wait for it for ever. Started by torchrun, they also have to agree where to
    go on before training, and that nothing is left to do."""
    root = small_disk / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d",
               "--rdzv-endpoint=localhost:0", "-m", "pretrain",
               *arguments(shards, root, "--checkpoint.every_n_train_steps=1", "--trainer.max_epochs=1"),
               "--trainer.devices=2", "--trainer.strategy=ddp", "--ckpt_path=auto"]  # fmt: skip

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    full = run()
    assert full.returncode != 0
    assert full.stderr.count("pretrain: error: could not write ") == 2, full.stderr[-3000:]
    assert names(root / "checkpoints") == ["last.ckpt", "step00000001.ckpt", "step00000002.ckpt"]
    subprocess.run(["mount", "-o", "remount,size=30m", str(small_disk)], check=True)
    rest = run()
    assert rest.returncode == 0, rest.stderr[-3000:]
    assert rest.stderr.count("going on from") == 1, "rank 0 decides for both"
    again = run()
    assert again.returncode == 0, again.stderr[-3000:]
    assert again.stderr.count("finished: 1 epochs, 3 steps") == 1


def test_a_run_on_a_full_disk_stops_clearly_and_goes_on_when_there_is_room(
    shards: Path,  # noqa: F811
    small_disk: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A checkpoint of this model takes 3.1 MB: two fit, and the third finds no room beside them."""
    root = small_disk / "run"
    command = arguments(
        shards, root, "--checkpoint.every_n_train_steps=1", "--trainer.max_epochs=1", "--ckpt_path=auto"
    )
    assert main(command) == 1
    message = capfd.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("pretrain: error: could not write ")
    assert "step00000003.ckpt: No space left on device; it needs 3.1 MB and" in message
    left = names(root / "checkpoints")
    assert left == ["last.ckpt", "step00000001.ckpt", "step00000002.ckpt"]
    assert all(find_damage(root / "checkpoints" / name) is None for name in left)
    subprocess.run(["mount", "-o", "remount,size=30m", str(small_disk)], check=True)
    assert main(command) == 0
    assert names(root / "checkpoints") == ["last.ckpt", "step00000005.ckpt", "step00000006.ckpt"]
