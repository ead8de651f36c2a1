"""What a folder is being prepared for, and what is done of it: a killed run goes on, a changed corpus is noticed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hicmae.benchmarks.card import NativeClip
from hicmae.data.shard_index import write_json

PLAN_NAME = "prepare.json"
JOURNAL_NAME = "made.jsonl"
OWN_NAMES = ("manifest.csv", "shards", "media", "faces")
"""What is written beside the plan and the report."""
_SHOWN = 5


def claim(out: Path, options: Mapping[str, Any], clips: Mapping[str, str]) -> None:
    """Say what the folder is for, or refuse one that is for something else, see ``options_there``."""
    there = options_there(out, options, clips)
    known = {name: value for name, value in there.items() if value is not None}
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / PLAN_NAME, {"options": dict(options) | known, "clips": dict(clips)})


def options_there(out: Path, options: Mapping[str, Any], clips: Mapping[str, str]) -> Mapping[str, Any]:
    """The options with which the folder was prepared before; empty for a new one. Nothing is written.

    Args:
        out: the folder.
        options: what decides the result besides the clips. An option that is None now, or was None then, may change.
        clips: fingerprint by clip.

    Raises:
        ValueError: it holds the same corpus in another state, or prepared with other options.
        FileExistsError: it holds files of these names that this command did not write.
    """
    file = out / PLAN_NAME
    if not file.exists():
        if found := [name for name in OWN_NAMES if (out / name).exists()]:
            raise FileExistsError(
                f"{out} holds {', '.join(found)}, which this command did not write; choose another --out"
            )
        return {}
    try:
        plan = json.loads(file.read_text(encoding="utf-8"))
        there: Mapping[str, Any] = plan["options"]
        problems = _changed_options(there, options) + _changed_clips(plan["clips"], clips)
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{file}: damaged ({error!r}); remove {out} and prepare again") from error
    if problems:
        raise ValueError(
            f"{out} was prepared from other clips, or with other options ({'; '.join(problems)}); give another --out, "
            "or remove this one"
        )
    return there


def fingerprints(clips: Sequence[NativeClip], root: Path) -> dict[str, str]:
    """What would change with a clip, by id: its row, its paths below the root, and the sizes of its files."""
    paths = list({path for native in clips for path in (native.clip.video, native.clip.audio) if path is not None})
    with ThreadPoolExecutor(max_workers=16) as pool:
        sizes = dict(zip(paths, pool.map(_size, paths, chunksize=64), strict=True))
    found = {}
    for native in clips:
        clip = native.clip
        media = [(_below(path, root), sizes[path]) for path in (clip.video, clip.audio) if path is not None]
        row = [media, clip.start_s, clip.end_s, clip.square, clip.subject, clip.split, clip.labels, native.region,
               native.frame_rate]  # fmt: skip
        text = json.dumps(row, sort_keys=True)
        found[clip.clip_id] = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    return found


class Journal:
    """A line for each clip that is done, in a file of the folder. A line that was being written counts for nothing, and
    so does what a power cut has left."""

    def __init__(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._file = out / JOURNAL_NAME
        self.lines: dict[str, dict[str, Any]] = {}
        """By clip id."""
        if self._file.exists():
            whole = self._file.read_bytes().rpartition(b"\n")[0]
            for line in whole.split(b"\n"):
                try:
                    values = json.loads(line)
                    self.lines[values["id"]] = values
                except (ValueError, KeyError, TypeError):
                    continue
            with self._file.open("rb+") as file:
                file.truncate(len(whole) + 1 if whole else 0)

    def add(self, values: dict[str, Any]) -> None:
        """Note what became of the clip ``values["id"]``."""
        self.lines[values["id"]] = values
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


def _size(path: Path) -> list[int]:
    """Bytes of a file, or number and bytes of the files in a folder; empty for what is missing."""
    try:
        if not path.is_dir():
            return [path.stat().st_size]
        with os.scandir(path) as entries:
            sizes = [entry.stat().st_size for entry in entries]
    except OSError:
        return []
    return [len(sizes), sum(sizes)]


def _below(path: Path, root: Path) -> str:
    """A corpus may have moved as a whole."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _changed_options(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: {there[name]!r} there, {value!r} now"
        for name, value in json.loads(json.dumps(now)).items()
        if there.get(name) is not None and value is not None and there[name] != value
    ]


def _changed_clips(there: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    groups = {
        "new": [name for name in now if name not in there],
        "gone": [name for name in there if name not in now],
        "changed": [name for name, value in now.items() if there.get(name, value) != value],
    }
    return [f"{what} clips ({len(names)}): {_some(names)}" for what, names in groups.items() if names]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
