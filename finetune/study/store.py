"""Where runs lie, and which of them are finished. Studies share them."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from finetune.study.grid import RESULTS, Link, Run
from finetune.study.options import with_options, write_yaml

FINISHED, SETTINGS, IDENTITY = "finished.json", "study.yaml", "identity.json"
_FAILED = "failed.json"
_CHECKPOINTS = "checkpoints"


class Store:
    """A folder of runs.

    Args:
        root: the folder; made when something is run.
        keep_checkpoints: leave the checkpoints of finished runs where they are. What others start from is their export,
            and a checkpoint, with the optimiser's state, is three times as large.
    """

    def __init__(self, root: Path, *, keep_checkpoints: bool = False) -> None:
        self.root = root
        self.keep_checkpoints = keep_checkpoints
        self._folders: dict[str, Path] = {}

    def folder(self, run: Run) -> Path:
        """Of a run, whatever the study that began it called its variants."""
        if run.digest in self._folders:
            return self._folders[run.digest]
        there = sorted(self.root.glob(f"{run.kind}*-{run.digest}"))
        if not there:  # another study may begin it before this one does, and call it something else
            return self.root / run.folder_name
        return self._folders.setdefault(run.digest, there[0])

    def is_finished(self, run: Run) -> bool:
        """Whether the marker, written last, and all results are there."""
        folder = self.folder(run)
        return all((folder / name).is_file() for name in (FINISHED, *RESULTS[run.kind]))

    def left_results(self, run: Run) -> bool:
        """Whether a process that ended left all that it was to leave."""
        return all((self.folder(run) / name).is_file() for name in RESULTS[run.kind])

    def finish(self, run: Run, seconds: float) -> None:
        """Mark a run as finished; its checkpoints are removed after, unless they are to be kept: were they removed
        before, and the process killed between, the run would begin anew."""
        folder = self.folder(run)
        write(folder / FINISHED, json.dumps({"run": run.name, "digest": run.digest, "seconds": round(seconds, 1)}))
        if not self.keep_checkpoints:
            shutil.rmtree(folder / _CHECKPOINTS, ignore_errors=True)

    def fail(self, run: Run, reason: str) -> None:
        """Remember why a run failed, until it is begun again."""
        with contextlib.suppress(OSError):  # the disk may be full: maybe that is the reason
            write(self.folder(run) / _FAILED, json.dumps({"run": run.name, "reason": reason}))

    def failure(self, run: Run) -> str | None:
        """Why a run failed when it was last begun; ``None`` where it did not."""
        path = self.folder(run) / _FAILED
        return str(json.loads(path.read_text())["reason"]) if path.is_file() and not self.is_finished(run) else None

    def seconds(self, run: Run) -> float:
        """How long the process took that finished a run."""
        return float(json.loads((self.folder(run) / FINISHED).read_text())["seconds"])

    def prepare(self, run: Run) -> list[str]:
        """Write a run's settings into its folder; returns its command."""
        folder = self.folder(run)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _FAILED).unlink(missing_ok=True)
        write(folder / IDENTITY, json.dumps(dict(run.identity), indent=2, sort_keys=True))
        if run.kind in ("corpus", "shards"):
            return [sys.executable, "-m", "hicmae", *self._data_command(run)]
        settings = with_options(run.settings, {name: self._path(link) for name, link in run.links.items()})
        settings = with_options(settings, {"trainer.default_root_dir": str(folder)})
        write(folder / SETTINGS, write_yaml(settings))
        job, action = ("pretrain", "fit") if run.kind == "pretrain" else ("finetune", _ACTIONS[run.kind])
        command = [sys.executable, "-m", job, action, "--config", str(folder / SETTINGS)]
        return command + (["--ckpt_path=auto"] if action == "fit" else [])

    def _path(self, link: Link | tuple[Link, ...]) -> Any:
        if isinstance(link, tuple):
            return [self._path(one) for one in link]
        return str(self.folder(link.run) / link.path)

    def _data_command(self, run: Run) -> list[str]:
        values, folder = run.settings, self.folder(run)
        if run.kind == "corpus":
            lengths = ["--seconds", str(values["min_seconds"]), str(values["max_seconds"])]
            sizes = {name: value for name, value in values.items() if name not in ("min_seconds", "max_seconds")}
            flags = [f"--{name.replace('_', '-')}={value}" for name, value in sizes.items()]
            return ["demo-data", str(folder / "corpus"), *lengths, *flags]
        storage = values["storage"]
        return [
            "shards", "write", self._path(run.links["manifest"]), str(folder / "shards"), "--split", values["split"],
            f"--format={storage['video']}", f"--audio={storage['audio']}", f"--size={storage['size']}",
            f"--shard-mb={values['shard_mb']}",
        ]  # fmt: skip


_ACTIONS = {"finetune": "fit", "probe": "probe", "test": "test"}


def write(path: Path, text: str) -> None:
    """A file that appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text if text.endswith("\n") else text + "\n")
    draft.replace(path)
