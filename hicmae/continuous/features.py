"""Features of a backbone at every step of long videos, stored once and mapped from the disk afterwards.

One folder a video: ``video.npy``, ``audio.npy`` and so on, float16 (S, D); ``steps.npy``, int64 (S,), the frames that
the steps stand on; ``present.npy``, bool (S, 2), whether picture and sound are there; ``about.json``, written last.
Arrays in files of their own, and not one .npz, because these can be written and read in parts: an hour of video then
takes no more memory than a minute.

Shapes: S steps, D width of the backbone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hicmae.backbone import Backbone, Modality
from hicmae.config import InputSpec
from hicmae.continuous.footage import Stretch, open_footage
from hicmae.continuous.sequences import LongVideo
from hicmae.data.file_lock import HeldLock, hold_lock
from hicmae.media.batch_transform import BatchTransform

logger = logging.getLogger(__name__)

Stream = Literal["video", "audio", "fused_video", "fused_audio"]
STREAMS: tuple[Stream, ...] = ("video", "audio", "fused_video", "fused_audio")
VERSION = 2
"""Raised whenever the same settings would give other features."""
_WAIT_S = 1800.0
"""Longest time that another process may be silent which computes the wanted features; it speaks after each batch."""


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """Which features are computed."""

    every: int = 1
    """A step at every n-th frame of the video; predictions between two steps are interpolated."""
    batch_size: int = 32
    """Windows that go through the backbone together; only speed and memory depend on it."""
    fused: bool = False
    """Also keep what the fusion layers make of both modalities (streams fused_video and fused_audio)."""

    def __post_init__(self) -> None:
        for name in ("every", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"features.{name}={getattr(self, name)} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Features:
    """The stored features of a video."""

    name: str
    digest: str
    """What they follow from (``FeatureStore.digest``)."""
    frames: int
    """Frames of the video."""
    steps: NDArray[np.int64]
    """int64 (S,): the frame that each step stands on."""
    times_s: NDArray[np.float64]
    """float64 (S,): when those frames are shown, in seconds."""
    streams: dict[str, NDArray[np.float16]]
    """float16 (S, D) by stream, on the disk; zeros where the stream is not present."""
    present: dict[str, NDArray[np.bool_]]
    """bool (S,) by stream."""


class FeatureStore:
    """Features of videos in a folder, made by one backbone with one set of settings.

    Args:
        folder: where they are, or will be.
        backbone: in evaluation mode, on the device to compute on.
        spec: its input.
        weights: digest of its weights, as in the export.
        settings: what is computed.
    """

    def __init__(
        self, folder: Path, backbone: Backbone, spec: InputSpec, *, weights: str, settings: FeatureSettings
    ) -> None:
        self.folder = folder
        self.backbone = backbone
        self.spec = spec
        self.settings = settings
        self.streams: tuple[str, ...] = STREAMS if settings.fused else STREAMS[:2]
        self._about = {"version": VERSION, "weights": weights, "input": spec.to_dict(), "every": settings.every}
        self._transform = BatchTransform(spec).to(next(backbone.parameters()).device)

    def digest(self, video: LongVideo) -> str:
        """What the features of a video follow from, as a short text: weights, settings, and the files (by size)."""
        about = self._about | {"streams": self.streams, "frame_rate": video.frame_rate, "files": _sizes(video)}
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]

    def find(self, video: LongVideo) -> Features | None:
        """The features of a video if they are there and were made by this backbone from these files."""
        folder = self.folder / video.name
        about = _read_about(folder)
        if about is None or about["digest"] != self.digest(video):
            return None
        present = np.load(folder / "present.npy")
        return Features(
            name=video.name,
            digest=about["digest"],
            frames=about["frames"],
            steps=np.load(folder / "steps.npy"),
            times_s=np.load(folder / "times_s.npy"),
            streams={name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in self.streams},
            present={name: _presence(name, present) for name in self.streams},
        )

    def get(self, video: LongVideo) -> Features:
        """The features of a video, computed now if they are not there. Where several processes want them, one
        computes and the others wait.

        Raises:
            DecodeError: the video cannot be decoded.
            ValueError, FileNotFoundError: a folder of faces that cannot be used.
            TimeoutError: another process has the video and does nothing.
        """
        if (found := self.find(video)) is not None:
            return found
        self.folder.mkdir(parents=True, exist_ok=True)
        with hold_lock(
            self.folder / f".{video.name}.lock", wait_s=_WAIT_S, what=f"{video.name} in {self.folder}"
        ) as lock:
            if (found := self.find(video)) is not None:
                return found
            if (stale := self.folder / video.name).exists():
                logger.info("features of %s were made by another model, settings or file: made anew", video.name)
                shutil.rmtree(stale)
            self._compute(video, lock)
            features = self.find(video)
        assert features is not None
        return features

    @torch.inference_mode()
    def _compute(self, video: LongVideo, lock: HeldLock) -> None:
        draft = self.folder / f".{video.name}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        began = time.perf_counter()
        with open_footage(video.video, video.faces, self.spec, name=video.name, frame_rate=video.frame_rate) as footage:
            frames = len(footage.times_s)
            steps = np.arange(0, frames, self.settings.every, dtype=np.int64)
            draft.mkdir(parents=True)
            width = self.backbone.config.width
            out = {
                name: np.lib.format.open_memmap(
                    draft / f"{name}.npy", mode="w+", dtype=np.float16, shape=(len(steps), width)
                )
                for name in self.streams
            }
            present = np.zeros((len(steps), 2), dtype=bool)
            starts = footage.starts(steps, self.spec)
            present[:, 0] = footage.shown(starts, self.spec)[1]
            # Closed before the file is, also after an error: its thread still decodes.
            with closing(_one_ahead(footage.stretches(steps, self.spec))) as stretches:
                for stretch in stretches:
                    self._embed(stretch, present, out, lock)
        for array in out.values():
            array.flush()
        np.save(draft / "steps.npy", steps)
        np.save(draft / "times_s.npy", footage.times_s[steps])
        np.save(draft / "present.npy", present)
        about = {"digest": self.digest(video), "frames": frames, **self._about}
        (draft / "about.json").write_text(json.dumps(about, indent=2) + "\n")
        draft.rename(self.folder / video.name)
        logger.info("features of %s: %d steps, %.0f a second; picture at %.1f%% of them, sound at %.1f%%", video.name,
                    len(steps), len(steps) / (time.perf_counter() - began), *(100 * present.mean(axis=0)))  # fmt: skip

    def _embed(
        self, stretch: Stretch, present: NDArray[np.bool_], out: Mapping[str, NDArray[Any]], lock: HeldLock
    ) -> None:
        """Write the features of a stretch's steps, and which of them have sound."""
        device = next(self.backbone.parameters()).device
        samples = self.spec.audio_samples
        reach = np.clip(stretch.sound_end - stretch.offsets, 0, samples)
        present[stretch.steps, 1] = reach > 0
        for first in range(0, len(stretch.rows), self.settings.batch_size):
            rows = slice(first, first + self.settings.batch_size)
            where = slice(stretch.steps.start + first, stretch.steps.start + min(rows.stop, len(stretch.rows)))
            video = self._transform.frames(torch.from_numpy(stretch.frames[stretch.rows[rows]]).to(device))
            log_mel = None
            if stretch.sound is not None:
                sound = np.stack([stretch.sound[offset : offset + samples] for offset in stretch.offsets[rows]])
                log_mel = self._transform.sound(
                    torch.from_numpy(sound).to(device), sound_samples=torch.from_numpy(reach[rows]).to(device)
                )
            features = self.backbone(video, log_mel)
            for name in self.streams:
                value = self._stream(name, features)
                if value is not None:
                    there = _presence(name, present[where])
                    out[name][where] = np.where(there[:, None], value.float().cpu().numpy(), 0)
            lock.beat()

    def _stream(self, name: str, features: Any) -> torch.Tensor | None:
        backbone = self.backbone
        if name in ("fused_video", "fused_audio"):
            tokens = getattr(features, name)
            return None if tokens is None else tokens.mean(dim=1)
        modality: Modality = "video" if name == "video" else "audio"
        means = features.layer_means.get(modality)
        return None if means is None else backbone.summarize(modality, means)


def _presence(stream: str, present: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """bool (S,): where a stream has something to say; the fused ones where both modalities are there."""
    if stream in ("video", "audio"):
        column: NDArray[np.bool_] = present[:, 0 if stream == "video" else 1]
        return column
    return present[:, 0] & present[:, 1]


def _one_ahead(stretches: Iterator[Stretch]) -> Generator[Stretch, None, None]:
    """Decode the next stretch while this one goes through the model."""
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as pool:
        coming = pool.submit(next, stretches, None)
        while (stretch := coming.result()) is not None:
            coming = pool.submit(next, stretches, None)
            yield stretch


def _sizes(video: LongVideo) -> dict[str, Any]:
    """Name and size of the video's files: enough to notice another file, at no cost."""
    sizes: dict[str, Any] = {}
    if video.video is not None:
        sizes[video.video.name] = video.video.stat().st_size
    if video.faces is not None:
        pictures = [path for path in video.faces.iterdir() if path.is_file()]
        sizes[video.faces.name] = [len(pictures), sum(path.stat().st_size for path in pictures)]
    return sizes


def _read_about(folder: Path) -> dict[str, Any] | None:
    try:
        about: dict[str, Any] = json.loads((folder / "about.json").read_text())
        return about
    except FileNotFoundError:
        return None
