"""Folders for as long as they are needed: nothing stays of a killed process, and what is others' is left alone."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hicmae.backbone import Backbone
from hicmae.checkpoint import read_export, save_export
from hicmae.config import InputSpec, ModelConfig
from hicmae.data.passing_folder import passing_folder

_KILLED = """
import os, signal, sys
from pathlib import Path
from hicmae.export_folder import replacing

with replacing(Path(sys.argv[1])) as draft:
    (draft / "model.safetensors").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _age(folder: Path) -> None:
    os.utime(folder, (time.time() - 3600,) * 2)


def test_the_next_export_removes_the_draft_of_one_that_was_killed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path / "export")], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    config = ModelConfig.preset("micro")
    model, spec = Backbone(config), InputSpec.for_model(config)
    save_export(tmp_path / "export", model, spec=spec, provenance={})
    assert left.exists(), "it may be of one that has just begun"
    _age(left)
    save_export(tmp_path / "export", model, spec=spec, provenance={})
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert read_export(tmp_path / "export").kind == "backbone"


@pytest.mark.parametrize("case", ["theirs", "holds_what_is_nowhere_else", "in_use"])
def test_what_is_no_leftover_stays(case: str, tmp_path: Path) -> None:
    folder = tmp_path / ".export-old"
    if case == "in_use":
        with passing_folder(tmp_path, ".export-") as folder:
            _age(folder)
            with passing_folder(tmp_path, ".export-"):
                assert folder.exists()
        assert not folder.exists()
        return
    folder.mkdir()
    if case != "theirs":
        (folder / ".lock").touch()
        (folder / "old").mkdir()
    _age(folder)
    with passing_folder(tmp_path, ".export-", stays_with="old"):
        assert folder.exists()


def test_without_locks_folders_are_made_and_none_is_taken_for_a_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with passing_folder(tmp_path, ".export-") as used:
        _age(used)
        with passing_folder(tmp_path, ".export-") as other:
            assert used.exists()
        assert not other.exists()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_listed_can_be_written_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as now:
        now.setattr(Path, "iterdir", refuse)
        with passing_folder(tmp_path, ".export-") as folder:
            assert folder.is_dir()
    assert not list(tmp_path.iterdir())
