"""A long run of the data stream over clips of which some are known to be bad: ``make soak``, or ``--help`` for more.

A synthetic corpus is packed in three storage formats, a known number of clips of which are made unusable: media files
cut short before packing, bytes changed in finished shards, a shard cut off, sound without a picture. ``TrainStream``
runs over them with worker processes until the time is up, and at the end it must be true that

- every whole epoch skipped exactly the planted clips, for the planted reasons, and delivered all others;
- batches built a second time, in this process, from their place in the stream alone, were equal to the bit;
- neither memory nor open files of any process grew.

Prints a table, writes ``soak.json`` and ``soak.png`` into ``--out``, and ends with status 1 if anything was not so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import random
import sys
import tempfile
import time
import wave
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hicmae import __version__
from hicmae.config import InputSpec, ModelConfig
from hicmae.data.augment import PretrainingDraws
from hicmae.data.batch import ClipBatch
from hicmae.data.loader import LoaderSettings
from hicmae.data.manifest import Clip, read_manifest, write_manifest
from hicmae.data.shard_index import ShardIndex
from hicmae.data.shard_source import ShardSource
from hicmae.data.shard_writer import write_shards
from hicmae.data.source import ClipUnreadableError
from hicmae.data.storage import StorageFormat
from hicmae.data.stream import TrainStream
from hicmae.data.synthetic.corpus import CorpusSettings, write_corpus

STORAGES = {
    "original": StorageFormat(),
    "h264": StorageFormat(video="h264", audio="aac", size=64),
    "jpeg": StorageFormat(video="jpeg", audio="wav", size=64),
}
BATCH_SIZE = 4
WORKERS = 2
CUT_SOURCES, CHANGED, CUT_OFF, PICTURELESS = 2, 2, 2, 4
"""Planted in each folder, the last two in the folder of originals alone. ``PICTURELESS`` is a multiple of the batch, so
that an epoch leaves no remainder and each planted clip comes up in it."""
SHARD_MB = 0.5
MOST_GROWTH_MB = 32.0
MOST_GROWTH_FILES = 8.0
WARM_UP = 0.25
"""Share of the run in which allocators and caches may still fill up."""


@dataclass(frozen=True, kw_only=True)
class Planted:
    """What is wrong with the shards, and what is right."""

    folders: tuple[Path, ...]
    rejected: int
    """Clips that packing refused."""
    bad: Mapping[str, str]
    """Reason by id of each clip that must be skipped, once an epoch."""
    good: frozenset[str]


@dataclass(kw_only=True)
class Watch:
    """What was seen during the run."""

    times_s: list[float] = field(default_factory=list)
    rss_mb: dict[str, list[float]] = field(default_factory=dict)
    """Resident memory by process (parent, worker 0, ...), one value for each of ``times_s``."""
    files: dict[str, list[int]] = field(default_factory=dict)
    """Open descriptors, likewise."""
    skipped: list[dict[str, int]] = field(default_factory=list)
    """Skips by reason of each whole epoch."""
    problems: list[str] = field(default_factory=list)
    batches: int = 0
    replayed: int = 0

    def sample(self, at_s: float) -> None:
        """Note memory and descriptors of this process and its workers."""
        workers = sorted(process.pid or 0 for process in multiprocessing.active_children())
        self.times_s.append(at_s)
        for number, pid in enumerate([os.getpid(), *workers]):
            name = f"worker {number - 1}" if number else "parent"
            self.rss_mb.setdefault(name, []).append(resident_mb(pid))
            self.files.setdefault(name, []).append(len(list(Path(f"/proc/{pid}/fd").iterdir())))


def resident_mb(pid: int) -> float:
    """Resident memory of a process, in megabytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def growth(times: Sequence[float], values: Sequence[float]) -> float:
    """By how much the values grew after the warm-up: length times the median slope between pairs (Theil and Sen), which
    single outliers do not move."""
    begin = int(WARM_UP * len(times))
    x, y = np.asarray(times[begin:], dtype=np.float64), np.asarray(values[begin:], dtype=np.float64)
    if len(x) < 3:
        raise ValueError(f"{len(x)} samples after the warm-up tell no growth; run for longer (--minutes)")
    keep = np.linspace(0, len(x) - 1, min(len(x), 400)).astype(np.int64)  # a pair of each: 80,000 slopes
    x, y = x[keep], y[keep]
    i, j = np.triu_indices(len(x), 1)
    return float(np.median((y[j] - y[i]) / (x[j] - x[i])) * (x[-1] - x[0]))


def plant(folder: Path, *, clips: int) -> Planted:
    """Write the corpus and its shards, and damage them."""
    settings = CorpusSettings(
        size=64, speakers=3, val_speakers=1, test_speakers=1, clips_per_speaker=8,
        unlabelled_speakers=max(1, clips // 8 - 3), unlabelled_clips_per_speaker=8,
    )  # fmt: skip
    whole = read_manifest(write_corpus(folder / "corpus", settings)).clips
    folders, bad, rejected, listed = [], {}, 0, set()
    for number, (name, storage) in enumerate(STORAGES.items()):
        rows = list(whole[number :: len(STORAGES)])
        rows += [_cut_source(folder, rows[i], f"{name}-cut-{i}") for i in range(CUT_SOURCES)]
        if name == "original":
            rows += [_pictureless(folder, f"sound-{i}", i) for i in range(PICTURELESS)]
            bad |= {f"sound-{i}": "no_video_stream" for i in range(PICTURELESS)}
        manifest = write_manifest(folder / f"{name}.csv", rows)
        shards = folder / name
        report = write_shards(read_manifest(manifest), shards, storage=storage, shard_mb=SHARD_MB)
        assert report.index is not None
        rejected += len(report.rejected)
        listed |= set(report.index.clips.values("clip_id"))
        if name == "original":
            bad |= dict.fromkeys(_cut_off(report.index, shards, spare=set(bad)), "shard_truncated")
        bad |= dict.fromkeys(_change(report.index, shards, spare=set(bad)), "checksum_mismatch")
        folders.append(shards)
    return Planted(folders=tuple(folders), rejected=rejected, bad=bad, good=frozenset(listed - set(bad)))


def _cut_source(folder: Path, clip: Clip, clip_id: str) -> Clip:
    """A clip whose file is cut short before it is packed."""
    assert clip.video is not None
    path = folder / f"{clip_id}.mp4"
    data = clip.video.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return Clip(clip_id=clip_id, video=path)


def _pictureless(folder: Path, clip_id: str, seed: int) -> Clip:
    """A WAV of noise, 3 s of 16 kHz mono."""
    path = folder / f"{clip_id}.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.random.default_rng(seed).integers(-3000, 3000, 48_000, dtype=np.int16).tobytes())
    return Clip(clip_id=clip_id, audio=path)


def _cut_off(index: ShardIndex, folder: Path, *, spare: set[str]) -> list[str]:
    """Cut the end off a shard, so that it loses its last ``CUT_OFF`` clips."""
    ids = index.clips.values("clip_id")
    for number, shard in enumerate(index.shards):
        rows = np.flatnonzero(index.clips.shard == number)
        lost = [ids[row] for row in rows[-CUT_OFF:]]
        if len(rows) > CUT_OFF and not spare & set(lost):
            places = [index.clips.place(int(rows[-CUT_OFF]), role) for role in ("video", "audio")]
            begin = min(place[0] for place in places if place is not None)
            assert begin < shard.bytes
            os.truncate(folder / shard.name, begin + 1)
            return lost
    raise RuntimeError("no shard of the corpus holds enough clips to be cut off; raise --clips")


def _change(index: ShardIndex, folder: Path, *, spare: set[str]) -> list[str]:
    """Change one byte in each of ``CHANGED`` clips' media."""
    ids = index.clips.values("clip_id")
    free = [row for row, clip_id in enumerate(ids) if clip_id not in spare]
    rows = random.Random(0).sample(free, CHANGED)
    for row in rows:
        place = index.clips.place(row, "video") or index.clips.place(row, "audio")
        assert place is not None
        with (folder / index.shards[int(index.clips.shard[row])].name).open("r+b") as file:
            file.seek(place[0] + place[1] // 2)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 1]))
    return [ids[row] for row in rows]


def run(planted: Planted, *, seconds: float) -> Watch:
    """Stream epoch after epoch until the time is up."""
    model = ModelConfig.preset("micro", image_size=64, num_frames=8)
    common: dict[str, Any] = {"spec": InputSpec.for_model(model), "draws": PretrainingDraws(model=model)}

    def stream(workers: int) -> TrainStream:
        settings = LoaderSettings(
            batch_size=BATCH_SIZE, num_workers=workers, seed=1, max_skip_fraction=1.0, require_video=True, pixels="rgb"
        )
        return TrainStream(ShardSource(planted.folders), loader=settings, **common)

    trained, again = stream(WORKERS), stream(0)
    clips = len(planted.good) + len(planted.bad)
    if len(trained) * BATCH_SIZE != clips:
        raise RuntimeError(f"{clips} clips leave a remainder of batches of {BATCH_SIZE}, which an epoch leaves out")
    for number in range(clips):  # so that this process, which reads little, has every shard open
        with contextlib.suppress(ClipUnreadableError):
            again.source.read(number)
    watch, rng = Watch(), random.Random(2)
    started, next_sample = time.monotonic(), 0.0
    interval = max(0.2, seconds / 1000)
    try:
        while (now := time.monotonic() - started) < seconds:
            skipped: Counter[tuple[str, str]] = Counter()
            delivered: Counter[str] = Counter()
            chosen = rng.randrange(len(trained))
            place = trained.state_dict()
            for number, batch in enumerate(trained):
                watch.batches += 1
                delivered.update(batch.clip_ids)
                skipped.update((skip.clip_id, skip.reason) for skip in batch.skipped)
                if number == chosen:
                    again.load_state_dict(place)
                    watch.problems += differences(batch, next(iter(again)), f"{place['epoch']}, batch {number}")
                    watch.replayed += 1
                place = trained.state_dict()
                now = time.monotonic() - started
                if now >= next_sample:
                    watch.sample(now)
                    next_sample = now + interval
                if now >= seconds:
                    break
            else:
                watch.problems += epoch_problems(planted, delivered, skipped, epoch=len(watch.skipped))
                reasons: Counter[str] = Counter()
                for (_, reason), count in skipped.items():
                    reasons[reason] += count
                watch.skipped.append(dict(reasons))
    finally:
        trained.close()
        again.close()
    return watch


def differences(batch: ClipBatch, again: ClipBatch, where: str) -> list[str]:
    """What differs between a batch and the one built again."""
    found = [] if batch.clip_ids == again.clip_ids else [f"epoch {where}: other clips when built again"]
    for name, value in vars(batch).items():
        if isinstance(value, torch.Tensor) and not torch.equal(value, getattr(again, name)):
            found.append(f"epoch {where}: {name} differs when built again")
    return found


def epoch_problems(
    planted: Planted, delivered: Counter[str], skipped: Counter[tuple[str, str]], *, epoch: int
) -> list[str]:
    """What of a whole epoch is not as planted."""
    found = []
    expected = Counter(dict.fromkeys(planted.bad.items(), 1))
    if skipped != expected:
        wrong = sorted(map(str, (skipped - expected) + (expected - skipped)))
        found.append(f"epoch {epoch}: skips that were not planted, or planted ones that were not: {', '.join(wrong)}")
    if set(delivered) != planted.good:
        names = sorted(set(delivered) ^ planted.good)
        found.append(f"epoch {epoch}: delivered clips are not the good ones: {', '.join(names[:10])}")
    if delivered.total() != len(planted.good) + len(planted.bad):
        found.append(f"epoch {epoch}: {delivered.total()} clips delivered")
    return found


def report(planted: Planted, watch: Watch, *, seconds: float) -> dict[str, Any]:
    """All figures, and ``problems``: what is not as it should be."""
    grown = {name: growth(watch.times_s, values) for name, values in watch.rss_mb.items()}
    files = {name: growth(watch.times_s, values) for name, values in watch.files.items()}
    problems = list(watch.problems)
    problems += [f"{name}: memory grew by {mb:.1f} MB" for name, mb in grown.items() if mb > MOST_GROWTH_MB]
    problems += [
        f"{name}: open files grew by {count:.0f}" for name, count in files.items() if count > MOST_GROWTH_FILES
    ]
    if planted.rejected != CUT_SOURCES * len(STORAGES):
        problems.append(f"packing rejected {planted.rejected} clips of {CUT_SOURCES * len(STORAGES)} cut ones")
    if not watch.skipped:
        problems.append("not one whole epoch was run; run for longer (--minutes)")
    return {
        "machine": f"{platform.machine()} processor, {os.cpu_count()} cores", "hicmae": __version__,
        "torch": torch.__version__, "seconds": seconds, "workers": WORKERS, "batch_size": BATCH_SIZE,
        "storages": list(STORAGES), "good_clips": len(planted.good), "rejected_at_packing": planted.rejected,
        "planted": dict(Counter(planted.bad.values())), "epochs": len(watch.skipped), "batches": watch.batches,
        "clips_per_s": watch.batches * BATCH_SIZE / seconds, "replayed_batches": watch.replayed,
        "growth_mb": grown, "growth_files": files, "problems": problems, **asdict(watch) | {"problems": problems},
    }  # fmt: skip


def table(result: Mapping[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"{result['seconds']:.0f} s, {result['workers']} workers, {result['epochs']} whole epochs, "
        f"{result['batches'] * result['batch_size']} clips ({result['clips_per_s']:.0f}/s), "
        f"{result['replayed_batches']} batches built again",
        f"planted: {result['rejected_at_packing']} rejected at packing; an epoch: {result['planted']}",
        "",
        f"{'process':<12}{'RSS warm, at end (MB)':>26}{'growth (MB)':>14}{'files':>14}{'growth':>10}",
    ]
    for name, values in result["rss_mb"].items():
        begin = int(WARM_UP * len(values))
        files = result["files"][name]
        lines.append(
            f"{name:<12}{values[begin]:>18.1f}{values[-1]:>8.1f}{result['growth_mb'][name]:>14.2f}"
            f"{f'{files[begin]}, {files[-1]}':>14}{result['growth_files'][name]:>10.1f}"
        )
    lines += ["", *(f"NOT AS IT SHOULD BE: {problem}" for problem in result["problems"][:20])]
    lines.append("" if result["problems"] else "all as planted; memory and open files flat")
    return "\n".join(lines) + "\n"


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Memory over time, and skips by epoch."""
    import matplotlib.pyplot as plt

    from hicmae.figures.canvas import save_figure

    figure, (memory, skips) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    minutes = np.asarray(result["times_s"]) / 60
    for name, values in result["rss_mb"].items():
        memory.plot(minutes, values, lw=1, label=name)
    memory.axvspan(minutes[0], minutes[int(WARM_UP * len(minutes))], color="0.92", label="warm-up")
    memory.set(xlabel="minutes", ylabel="resident memory (MB)", ylim=(0, None))
    for reason, count in result["planted"].items():
        (line,) = skips.plot([epoch.get(reason, 0) for epoch in result["skipped"]], ".", ms=3, label=reason)
        skips.axhline(count, color=line.get_color(), lw=0.6, ls="--")
    skips.set(xlabel="epoch", ylabel="clips skipped (dashes: planted)", ylim=(0, None))
    for axes in (memory, skips):
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    save_figure(figure, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Plant, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long to stream, without the preparation")
    parser.add_argument("--clips", type=int, default=96, help="clips of the corpus before damage; a multiple of 24")
    parser.add_argument("--out", type=Path, help="folder for soak.json and soak.png")
    args = parser.parse_args(arguments)
    if args.clips < 48 or args.clips % 24 or args.minutes <= 0:
        parser.error(f"--clips {args.clips} must be a multiple of 24, 48 or more, and --minutes positive")
    with tempfile.TemporaryDirectory() as folder:
        planted = plant(Path(folder), clips=args.clips)
        result = report(planted, run(planted, seconds=60 * args.minutes), seconds=60 * args.minutes)
    sys.stdout.write(table(result))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "soak.json").write_text(json.dumps(result, indent=1))
        draw(result, args.out / "soak.png")
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
