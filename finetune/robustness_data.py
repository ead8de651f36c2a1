"""The test clips under a corruption: decoded as in any test, changed on their way to the model.

Clips are decoded once and kept where they fit into memory, and decoded again for every level where they do not. What
is random is drawn by (seed, corruption, clip, segment), and is the same at all levels of a corruption.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.data import FinetuneData
from hicmae.config import InputSpec
from hicmae.corruptions.corruption import Corruption, Media
from hicmae.corruptions.desynchronisation import late_sound
from hicmae.data.augment import EvaluationDraws
from hicmae.data.batch import ClipBatch
from hicmae.data.evaluation import EvaluationLoader
from hicmae.data.order import generator
from hicmae.data.source import ClipSource, ClipUnreadableError
from hicmae.data.splits import TEST
from hicmae.media.clip import DecodeError
from hicmae.media.yuv import to_rgb

logger = logging.getLogger(__name__)

VOICES = 6
"""Other clips that are heard in babble."""
_POOL = 64  # clips from which these are drawn: 5 MB of sound


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A corruption at a level."""

    corruption: Corruption
    level: float
    seed: int = 0


class RobustnessData(FinetuneData):
    """``FinetuneData`` whose test clips come under ``condition``."""

    condition: Condition | None = None
    """``None``: as they are."""
    keep_bytes: int = 0
    """Decoded test clips that take no more are kept in memory."""
    _kept: KeptBatches | None = None
    _sounds: TestSounds | None = None

    def test_dataloader(self) -> EvaluationLoader | CorruptedBatches:  # type: ignore[override]
        """Every test clip and segment once, in the batches of a test."""
        batches = self.kept_batches()
        if self.condition is None:
            return batches  # type: ignore[return-value]
        return CorruptedBatches(batches, self.condition, self.sounds(), threads=max(1, self.loader.num_workers))

    def kept_batches(self) -> KeptBatches:
        """The clips as they are."""
        if self._kept is None:
            self._kept = KeptBatches(super().test_dataloader(), self.keep_bytes)
        return self._kept

    def sounds(self) -> TestSounds:
        """The test clips' sound, beside what the batches hold."""
        if self._sounds is None:
            self._sounds = TestSounds(self.evaluation_source(TEST), self.spec, segments=self.segments[TEST])
        return self._sounds


class KeptBatches:
    """The batches of a loader, the same in every pass; after the first pass out of memory, if they fit.

    Args:
        loader: what decodes them.
        keep_bytes: what they may take.
    """

    def __init__(self, loader: EvaluationLoader, keep_bytes: int) -> None:
        self._loader, self._keep_bytes = loader, keep_bytes
        self._batches: list[ClipBatch] | None = None

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[ClipBatch]:
        if self._batches is not None:
            self._loader.close()
            yield from self._batches
            return
        batches: list[ClipBatch] = []
        for number, batch in enumerate(self._loader):
            size = len(self) * (batch.video.nbytes + batch.waveform.nbytes)
            fits = size <= self._keep_bytes
            if not number:
                logger.info("decoded, the test is %.2f GB: %s", size / 1e9, "kept" if fits else "decoded each time")
            if fits:
                batches.append(batch)
            if len(batches) == len(self):  # before the last one is handed on, after which the trainer asks for no more
                self._batches = batches
            yield batch


class TestSounds:
    """Sound of the test clips that their windows do not hold: of other instants, and of other clips.

    Args:
        source: the clips.
        spec: timing of the windows.
        segments: windows a clip.
    """

    __test__ = False  # no test, whatever pytest thinks of its name

    def __init__(self, source: ClipSource, spec: InputSpec, *, segments: int) -> None:
        self.source, self.spec = source, spec
        self._draws = EvaluationDraws(image_size=spec.image_size, segments=segments)
        self._lock = threading.Lock()
        self._pool: dict[int, dict[int, NDArray[np.int16]]] = {}

    def late(self, number: int, segment: int, late_s: float) -> tuple[NDArray[np.int16], int]:
        """The sound of a window of clip ``number`` that comes ``late_s`` seconds late: see ``late_sound``."""
        return self._read(number, self._draws(segment).position, late_s)

    def voices(self, number: int, seed: int) -> list[NDArray[np.int16]]:
        """The sound of other clips, of other speakers if there are enough; drawn for the clip, from a few of all.

        Raises:
            ValueError: no other clip has sound.
        """
        pool = self._voices_of_all(seed)
        own = self.source.info(number).subject
        others = [other for other in pool if other != number]
        strangers = [other for other in others if not own or self.source.info(other).subject != own]
        order = generator("voices", seed, self.source.info(number).clip_id).permutation
        chosen = strangers if len(strangers) >= VOICES else others
        if not chosen:
            raise ValueError(
                f"{self.source.name}: babble is made of the sound of other clips, and there is none; leave babble out "
                "of robustness.corruptions"
            )
        return [pool[chosen[place]] for place in order(len(chosen))[:VOICES]]

    def _voices_of_all(self, seed: int) -> dict[int, NDArray[np.int16]]:
        """Sound of the middle of some clips, by number."""
        if seed not in self._pool:
            found: dict[int, NDArray[np.int16]] = {}
            for number in generator("babble", seed).permutation(len(self.source)).tolist():
                try:
                    waveform, reach = self._read(number, 0.5, 0.0)
                except (DecodeError, ClipUnreadableError):
                    continue  # the test counts it
                if waveform[:reach].any():
                    found[number] = waveform[:reach]
                if len(found) == _POOL:
                    break
            self._pool[seed] = found
        return self._pool[seed]

    def _read(self, number: int, position: float, late_s: float) -> tuple[NDArray[np.int16], int]:
        with self._lock:  # sources are not made for threads
            clip = self.source.read(number)
        return late_sound(
            clip.video,
            clip.audio,
            spec=self.spec,
            position=position,
            late_s=late_s,
            span_s=clip.span_s,
            square=clip.square,
            name=clip.clip_id,
        )


class CorruptedBatches:
    """Batches whose clips are changed; what a clip lacks is left as it is.

    Args:
        batches: clips as they are; not changed.
        condition: what is done to them.
        sounds: of these clips.
        threads: clips that are changed at the same time.
    """

    def __init__(self, batches: KeptBatches, condition: Condition, sounds: TestSounds, *, threads: int) -> None:
        self._batches, self._condition, self._sounds, self._threads = batches, condition, sounds, threads

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[ClipBatch]:
        if self._condition.corruption.name == "babble":
            self._sounds.voices(0, self._condition.seed)  # read before threads ask for them
        with ThreadPoolExecutor(self._threads) as pool:
            for batch in self._batches:
                yield self._changed(batch, pool)

    def _changed(self, batch: ClipBatch, pool: ThreadPoolExecutor) -> ClipBatch:
        needed = self._condition.corruption.modalities
        video = to_rgb(batch.video) if "video" in needed and batch.pixels == "yuv420p" else batch.video.clone()
        changed = replace(
            batch, video=video, waveform=batch.waveform.clone(), sound_samples=batch.sound_samples.clone(),
            has_audio=batch.has_audio.clone(),
        )  # fmt: skip
        has = {"video": batch.has_video, "audio": batch.has_audio}
        usable = torch.stack([batch.valid, *(has[name] for name in needed)]).all(dim=0)
        rows = usable.nonzero().flatten().tolist()
        # Written here: the tensors of a test may be changed in its own thread alone.
        for row, result in zip(rows, pool.map(partial(self._result, changed), rows), strict=True):
            if changed.pixels == "rgb24":
                changed.video[row] = torch.from_numpy(result.video)
            changed.waveform[row] = torch.from_numpy(result.waveform)
            changed.sound_samples[row] = result.sound_samples
            changed.has_audio[row] = bool(changed.has_audio[row]) and result.sound_samples > 0
        return changed

    def _result(self, batch: ClipBatch, row: int) -> Media:
        return changed_media(media_of(batch, row, self._sounds, self._condition), self._condition, batch, row)


def media_of(batch: ClipBatch, row: int, sounds: TestSounds, condition: Condition) -> Media:
    """A row of a batch as a corruption takes it; without a picture where the batch holds planes."""
    number = int(batch.index[row])
    return Media(
        video=batch.video[row].numpy(),
        waveform=batch.waveform[row].numpy(),
        sound_samples=int(batch.sound_samples[row]),
        rate_hz=sounds.spec.sample_rate_hz,
        voices=sounds.voices(number, condition.seed) if condition.corruption.name == "babble" else (),
        sound_at=partial(sounds.late, number, int(batch.segment[row])),
    )


def changed_media(media: Media, condition: Condition, batch: ClipBatch, row: int) -> Media:
    """The row under the condition."""
    name, segment = condition.corruption.name, int(batch.segment[row])
    rng = generator("corruption", condition.seed, name, batch.clip_ids[row], segment)
    return condition.corruption(media, condition.level, rng)
