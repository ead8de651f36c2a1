"""Which clip goes into which shard: a pure function of manifest and options, so that any process can write any part."""

from __future__ import annotations

import hashlib
import heapq
import json
from dataclasses import asdict, dataclass
from typing import Any

from hicmae.data.manifest import Clip, Manifest
from hicmae.data.order import generator
from hicmae.data.packed import Reject
from hicmae.data.shard_pack import pack_clip
from hicmae.data.storage import StorageFormat
from hicmae.media.picture_writer import SETTINGS

TAR_OVERHEAD = 3 * 1024
"""Header and padding of the members of a clip, in bytes."""
_SIZED_CLIPS = 16
_MEASURED_CLIPS, _MEASURED_SHARE = 64, 1000


@dataclass(frozen=True, kw_only=True)
class SizeEstimate:
    """How large re-encoded clips will be, so that shards can be planned before anything is encoded."""

    bytes_per_second: float
    """For clips of known start and end."""
    bytes_per_source_byte: float
    """For clips that are whole files, or run to the end of one."""

    def bytes_of(self, clip: Clip, source_bytes: int) -> int:
        """Bytes that the clip will probably need."""
        if clip.end_s is not None:
            return round((clip.end_s - (clip.start_s or 0.0)) * self.bytes_per_second)
        return round(source_bytes * self.bytes_per_source_byte)


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """Which clips go into which shard."""

    shards: tuple[tuple[Clip, ...], ...]
    measured: frozenset[str]
    """Ids of the clips whose quality is measured when they are re-encoded."""
    options: dict[str, Any]
    """What the plan follows from, besides the manifest."""
    digest: str
    """Changes with the clips, their sizes and the options."""

    @property
    def clips(self) -> int:
        """Clips over all shards."""
        return sum(len(clips) for clips in self.shards)


def plan_shards(
    manifest: Manifest,
    *,
    shard_bytes: int,
    seed: int,
    storage: StorageFormat | None = None,
    estimate: SizeEstimate | None = None,
) -> ShardPlan:
    """Permute the clips globally and cut the sequence into shards of about ``shard_bytes``.

    The permutation keeps the clips of a speaker apart, which in-batch negatives need. Original files have the size
    that they have; re-encoded clips are taken to have the size of ``estimate``.
    """
    storage = storage or StorageFormat()
    order = generator("pack", seed).permutation(len(manifest.clips))
    digest = hashlib.blake2b(digest_size=16)
    options = {
        "storage": storage.to_dict(),
        "encoding": SETTINGS.get(storage.video),
        "shard_bytes": shard_bytes,
        "seed": seed,
        "estimate": None if estimate is None else asdict(estimate),
    }
    digest.update(json.dumps(options, sort_keys=True).encode())
    shards: list[list[Clip]] = []
    room = 0
    for number in order:
        clip = manifest.clips[number]
        sizes = source_sizes(clip)
        need = TAR_OVERHEAD + (estimate.bytes_of(clip, sum(sizes)) if estimate else sum(sizes))
        if not shards or need > room:
            shards.append([])
            room = shard_bytes
        room -= need
        shards[-1].append(clip)
        row = [clip.clip_id, sizes, clip.start_s, clip.end_s, clip.subject, clip.split, clip.labels, len(shards)]
        row += [clip.square] if clip.square else []
        digest.update(json.dumps(row, sort_keys=True).encode())
    return ShardPlan(
        shards=tuple(map(tuple, shards)),
        measured=_measured(manifest) if storage.video != "original" else frozenset(),
        options=options,
        digest=digest.hexdigest(),
    )


def estimate_sizes(manifest: Manifest, storage: StorageFormat) -> SizeEstimate:
    """Encode a few clips, always the same ones, and see how large they become.

    Two digits are kept, so that jobs on machines whose encoders differ by some bytes agree.
    """
    seconds = source = stored = 0.0
    for number in generator("sizes").permutation(len(manifest.clips))[:_SIZED_CLIPS]:
        clip = manifest.clips[number]
        packed = pack_clip(clip, storage)
        if isinstance(packed, Reject):
            continue
        stored += sum(map(len, packed.members.values()))
        seconds += packed.clip.duration_s or 0.0
        source += sum(source_sizes(clip))
    if not stored or not seconds:
        return SizeEstimate(bytes_per_second=40_000.0, bytes_per_source_byte=1.0)  # all of them are unfit
    return SizeEstimate(
        bytes_per_second=float(f"{stored / seconds:.1e}"), bytes_per_source_byte=float(f"{stored / source:.1e}")
    )


def source_sizes(clip: Clip) -> list[int]:
    """Bytes of the clip's picture file and of its sound file, 0 without one."""
    return [path.stat().st_size if path else 0 for path in (clip.video, clip.audio)]


def _measured(manifest: Manifest) -> frozenset[str]:
    """A thousandth of the clips and at least 64, chosen by their ids alone."""
    count = max(_MEASURED_CLIPS, len(manifest.clips) // _MEASURED_SHARE)
    ids = (clip.clip_id for clip in manifest.clips)
    return frozenset(heapq.nsmallest(count, ids, key=lambda clip_id: hashlib.blake2b(clip_id.encode()).digest()))
