"""From a manifest to shards, in any number of processes and jobs that may be killed at any time.

A folder being written holds ``plan.json`` (what it will be), finished tars, and ``parts/`` with one small file for
each finished shard. The process that finds all parts there merges them into ``index.json``.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

# WebDataset reads this once, at import: no shell pipes, no unpickling
os.environ.setdefault("WDS_SECURE", "1")

import webdataset as wds

from hicmae import __version__
from hicmae.data.manifest import Clip, Manifest
from hicmae.data.packed import PackedClip, Reject, Shard
from hicmae.data.processes import end_with_parent, obey_signals, worker_context
from hicmae.data.remembered import differences
from hicmae.data.shard_index import INDEX_NAME, ShardIndex, write_json
from hicmae.data.shard_pack import pack_clip
from hicmae.data.shard_plan import ShardPlan, SizeEstimate, estimate_sizes, plan_shards
from hicmae.data.storage import StorageFormat
from hicmae.data.tar_members import scan_tar, split_member_name
from hicmae.media.quality import FRAMES_MEASURED

PLAN_NAME = "plan.json"
PARTS_NAME = "parts"


@dataclass(frozen=True, kw_only=True)
class WriteReport:
    """What ``write_shards`` did."""

    index: ShardIndex | None
    """The merged index; None while other parts are still missing."""
    packed: int
    """Clips in the shards of this part."""
    rejected: tuple[Reject, ...]
    """Clips of this part that were not packed."""
    already_done: int
    """Shards of this part that an earlier run had finished."""
    missing_shards: int
    """Shards that other parts have yet to write."""


def write_shards(
    manifest: Manifest,
    folder: str | os.PathLike[str],
    *,
    storage: StorageFormat | None = None,
    shard_mb: float = 256,
    workers: int = 1,
    seed: int = 0,
    part: tuple[int, int] = (1, 1),
    on_progress: Callable[[int, int], None] | None = None,
) -> WriteReport:
    """Pack a manifest's clips into WebDataset tars with an index. May be killed and started again at any time.

    Args:
        manifest: the clips; ``manifest.select`` takes one split.
        folder: where the tars go; made when missing.
        storage: how clips are stored; None keeps the original files.
        shard_mb: size of a shard, in megabytes (10**6 bytes); of re-encoded clips an estimate is used.
        workers: processes.
        seed: of the permutation.
        part: (i, n) writes the i-th of n parts, 1-based, for arrays of jobs; the last to finish merges the index.
        on_progress: called with (clips done, clips of this part).

    Raises:
        ValueError: the folder holds shards of other clips or options, or an option is out of range.
        OSError: the disk is full or gone; nothing half-written keeps a shard's name.
    """
    if not 0 < shard_mb < math.inf or workers < 1 or not 1 <= part[0] <= part[1]:
        raise ValueError(
            f"shard_mb={shard_mb:g} must be positive and finite, workers={workers} at least 1, and "
            f"part={part[0]}/{part[1]} within 1/n to n/n"
        )
    folder = Path(folder)
    storage = storage or StorageFormat()
    estimate = None
    if storage.video != "original":
        estimate = _estimate_there(folder) or estimate_sizes(manifest, storage)
    plan = plan_shards(
        manifest, shard_bytes=round(shard_mb * 1e6), seed=seed, storage=storage, estimate=estimate
    )  # fmt: skip
    _claim(folder, plan, manifest)
    own = range(part[0] - 1, len(plan.shards), part[1])
    to_do = [number for number in own if _finished(folder, plan, number) is None]
    total = sum(len(plan.shards[number]) for number in own)
    done_before = total - sum(len(plan.shards[number]) for number in to_do)

    def progress(clips: int) -> None:
        if on_progress:
            on_progress(done_before + clips, total)

    progress(0)
    tasks = [
        _Task(folder=folder, number=number, clips=plan.shards[number], digest=plan.digest, storage=storage,
              measured=plan.measured.intersection(clip.clip_id for clip in plan.shards[number]))
        for number in to_do
    ]  # fmt: skip
    if workers == 1 or len(tasks) <= 1:
        _write_here(tasks, progress)
    else:
        _write_in_processes(tasks, min(workers, len(tasks)), progress)

    index, missing = _merge(folder, plan, manifest, storage)
    results = [result for number in own if (result := _finished(folder, plan, number)) is not None]
    return WriteReport(
        index=index,
        packed=sum(len(result["shard"]["samples"]) for result in results if result["shard"]),
        rejected=tuple(Reject.from_dict(reject) for result in results for reject in result["rejected"]),
        already_done=len(own) - len(to_do),
        missing_shards=missing,
    )


def _estimate_there(folder: Path) -> SizeEstimate | None:
    """The estimate by which an earlier run, or another part, has planned this folder."""
    try:
        return SizeEstimate(**json.loads((folder / PLAN_NAME).read_text(encoding="utf-8"))["estimate"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # what is wrong with a plan is said when the folder is claimed


def _claim(folder: Path, plan: ShardPlan, manifest: Manifest) -> None:
    """Say what the folder is for, or refuse one that is for something else."""
    file = folder / PLAN_NAME
    values = {
        "manifest": manifest.path.name,
        "clips": plan.clips,
        **plan.options,
        "shards": len(plan.shards),
        "plan": plan.digest,
    }
    if file.exists():
        if what := differences(file, values):
            raise ValueError(
                f"{folder} holds shards of another manifest or of other options ({what}); write to another folder, or "
                "remove this one"
            )
        return
    if folder.exists() and (found := sorted(folder.glob("*.tar")) + sorted(folder.glob(INDEX_NAME))):
        raise ValueError(f"{folder} holds {found[0].name}, which this command did not write; choose another folder")
    (folder / PARTS_NAME).mkdir(parents=True, exist_ok=True)
    write_json(file, values)


def _finished(folder: Path, plan: ShardPlan, number: int) -> dict[str, Any] | None:
    """The part file of a shard that is whole, or None."""
    file = _part_file(folder, number)
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    shard = values["shard"]
    if values["plan"] != plan.digest:
        return None
    if shard is not None:
        tar = folder / shard["name"]
        if not tar.is_file() or tar.stat().st_size != shard["bytes"]:
            return None
    return values


def _merge(folder: Path, plan: ShardPlan, manifest: Manifest, storage: StorageFormat) -> tuple[ShardIndex | None, int]:
    """Write the index when all shards are there; also the number of those that are not."""
    results = [_finished(folder, plan, number) for number in range(len(plan.shards))]
    whole = [result for result in results if result is not None]
    if len(whole) < len(results):
        return None, len(results) - len(whole)
    index = ShardIndex.build(
        [Shard.from_dict(result["shard"]) for result in whole if result["shard"]],
        rejected=tuple(Reject.from_dict(reject) for result in whole for reject in result["rejected"]),
        storage=storage,
        quality=_summary([pair for result in whole for pair in result["quality"]]),
        made_by={
            "hicmae": __version__,
            "command": "shards write",
            "manifest": manifest.path.name,
            "plan": plan.digest,
            **{name: value for name, value in plan.options.items() if name != "storage"},
        },
    )
    index.write(folder)
    return index, 0


def _summary(pairs: Sequence[tuple[float | None, float | None]]) -> dict[str, Any]:
    """Mean and minimum of [luma PSNR, sound SNR] in dB over the clips measured; empty when none was."""
    summary: dict[str, Any] = {"clips": len(pairs), "frames_per_clip": FRAMES_MEASURED} if pairs else {}
    for place, name in enumerate(("luma_psnr_db", "sound_snr_db")):
        values = [value for pair in pairs if (value := pair[place]) is not None]
        if values:
            summary[name] = {"mean": round(sum(values) / len(values), 2), "min": round(min(values), 2)}
    return summary


def _part_file(folder: Path, number: int) -> Path:
    return folder / PARTS_NAME / f"shard-{number:06d}.json"


@dataclass(frozen=True, kw_only=True)
class _Task:
    """One shard to write."""

    folder: Path
    number: int
    clips: tuple[Clip, ...]
    digest: str
    storage: StorageFormat
    measured: frozenset[str]
    """Ids of its clips whose quality is measured."""


def _write_here(tasks: Sequence[_Task], progress: Callable[[int], None]) -> None:
    clips = 0
    for task in tasks:
        for _ in _write_shard(task):
            clips += 1
            progress(clips)


def _write_in_processes(tasks: Sequence[_Task], workers: int, progress: Callable[[int], None]) -> None:
    context = worker_context()
    counter, stop = context.Value("q", 0), context.Event()
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_share, initargs=(counter, stop)) as pool:
        running: set[Future[None]] = {pool.submit(_write_shard_counting, task) for task in tasks}
        try:
            while running:
                finished, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                progress(counter.value)
                for future in finished:
                    future.result()
        except BaseException:
            # The others give up after the clip that they are at, and remove what they have begun.
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


_clips_done: Any = None  # shared by the processes of a pool, set when each starts
_stop: Any = None


class _Stopped(Exception):
    """Another process has failed."""


def _share(counter: Any, stop: Any) -> None:
    global _clips_done, _stop
    _clips_done, _stop = counter, stop
    # A worker of a killed job would wait for its next shard for ever, after another two of them.
    end_with_parent()
    obey_signals()


def _write_shard_counting(task: _Task) -> None:
    with closing(_write_shard(task)) as clips:
        for _ in clips:
            with _clips_done.get_lock():
                _clips_done.value += 1
            if _stop.is_set():
                raise _Stopped


def _write_shard(task: _Task) -> Generator[None, None, None]:
    """Probe, pack and hash one shard; yields after each clip. Its part file is written last."""
    name = f"shard-{task.number:06d}.tar"
    infos: dict[str, PackedClip] = {}
    rejected: list[Reject] = []
    quality: list[tuple[float | None, float | None]] = []
    with _temporary_beside(task.folder / name) as temporary:
        with temporary.open("wb") as file:
            hashing = _HashingFile(file)
            # mtime 0: the same clips give the same bytes
            with wds.TarWriter(hashing, encoder=False, mtime=0, user="hicmae", group="hicmae") as tar:
                for clip in task.clips:
                    packed = pack_clip(clip, task.storage, measure=clip.clip_id in task.measured)
                    if isinstance(packed, Reject):
                        rejected.append(packed)
                    else:
                        infos[clip.clip_id] = packed.clip
                        tar.write({"__key__": clip.clip_id, **packed.members})
                        if packed.quality is not None:
                            quality.append((packed.quality.luma_psnr_db, packed.quality.sound_snr_db))
                    yield
            file.flush()
            os.fsync(file.fileno())
        if infos:
            shard = Shard(
                name=name,
                bytes=temporary.stat().st_size,
                sha256=hashing.sha256.hexdigest(),
                clips=_place(temporary, infos),
            )
            temporary.replace(task.folder / name)
    write_json(
        _part_file(task.folder, task.number),
        {
            "plan": task.digest,
            "shard": shard.to_dict() if infos else None,
            "rejected": [reject.to_dict() for reject in rejected],
            "quality": quality,
        },
    )


def _place(tar: Path, infos: dict[str, PackedClip]) -> tuple[PackedClip, ...]:
    """Fill in where the members lie, read back from the tar itself."""
    members, problem = scan_tar(tar)
    if problem:
        raise OSError(f"{tar}: {problem}, straight after writing; check the disk")
    for member in members:
        key, extension = split_member_name(member.name) or ("", "")
        infos[key].members[extension] = (member.offset, member.size)
    return tuple(infos.values())


class _HashingFile:
    """A file that keeps the SHA-256 of what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self._file.write(data)


@contextmanager
def _temporary_beside(path: Path) -> Iterator[Path]:
    """A name for a file in the making; whatever still has it at the end is removed, and what a killed run has left."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
