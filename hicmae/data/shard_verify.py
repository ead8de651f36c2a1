"""Do shards hold what their index says, and can their clips be decoded?"""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hicmae.config import InputSpec
from hicmae.data.order import generator
from hicmae.data.packed import PackedClip
from hicmae.data.shard_index import ShardFile, ShardIndex
from hicmae.data.shard_source import ShardSource
from hicmae.data.source import ClipUnreadableError
from hicmae.data.tar_members import AUDIO_EXTENSIONS, PICTURE_MEMBERS, refusal, scan_tar, split_member_name
from hicmae.file_digest import sha256_of
from hicmae.media.clip import DecodeError
from hicmae.media.decode import decode_clip


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What ``verify_shards`` found."""

    shards: int
    clips: int
    decoded: int
    """Clips decoded as a sample."""
    problems: tuple[str, ...]
    """One line a finding; empty when all is well."""


def verify_shards(
    path: str | os.PathLike[str],
    *,
    decode: int = 16,
    seed: int = 0,
    on_shard: Callable[[str], None] | None = None,
) -> VerifyReport:
    """Check a shard folder: every byte against its hash, every member against the index, a sample of clips by decoding.

    Args:
        path: the folder or its ``index.json``.
        decode: clips to decode, drawn at random; 0 decodes none.
        seed: of that draw.
        on_shard: called with each shard's name when it is done.
    """
    index, folder = ShardIndex.read(path)
    problems: list[str] = []
    owner: dict[str, str] = {}
    left_out = {reject.clip_id for reject in index.rejected}
    rows = index.clips.clips()
    for shard in index.shards:
        clips = list(itertools.islice(rows, shard.samples))
        problems += _check_shard(folder / shard.name, shard, clips, left_out)
        for clip in clips:
            if clip.clip_id in owner:
                problems.append(f"clip {clip.clip_id!r} is in {owner[clip.clip_id]} and again in {shard.name}")
            owner[clip.clip_id] = shard.name
        if on_shard:
            on_shard(shard.name)
    listed = {shard.name for shard in index.shards}
    for tar in sorted(folder.glob("*.tar")):
        if tar.name not in listed:
            problems.append(f"{tar.name} is not in the index; remove it, or index the folder again")
    decoded = 0
    if decode and owner:
        decoded, found = _decode_some(path, decode, seed)
        problems += found
    return VerifyReport(shards=len(index.shards), clips=len(owner), decoded=decoded, problems=tuple(problems))


def _check_shard(tar: Path, shard: ShardFile, clips: Sequence[PackedClip], left_out: set[str]) -> list[str]:
    if not tar.is_file():
        return [f"{shard.name} is missing; copy or write it again"]
    problems = []
    size = tar.stat().st_size
    if size != shard.bytes:
        problems.append(f"{shard.name} has {size} bytes, the index says {shard.bytes}; copy or write it again")
    elif (actual := sha256_of(tar)) != shard.sha256:
        problems.append(f"{shard.name} has SHA-256 {actual}, the index says {shard.sha256}; copy or write it again")
    members, damage = scan_tar(tar)
    if damage:
        problems.append(f"{shard.name}: {damage}")
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for member in members:
        key, extension = split_member_name(member.name) or (member.name, "")
        if reason := refusal(extension):
            problems.append(f"{shard.name}: member {member.name!r} does not belong there: {reason}; it is never read")
            continue
        if key in left_out:
            continue
        # keys of tars from elsewhere may hold folders; ids replace their slashes
        name = key.strip("/").replace("/", "_"), extension
        if name in found:
            problems.append(f"{shard.name}: member {member.name!r} occurs twice")
        found[name] = member.offset, member.size
    problems += _check_sums(tar, shard, clips)
    for clip in clips:
        for extension, place in clip.members.items():
            actual_place = found.pop((clip.clip_id, extension), None)
            if actual_place is None:
                problems.append(f"{shard.name}: {clip.clip_id}.{extension} is in the index and not in the tar")
            elif actual_place != tuple(place):
                problems.append(
                    f"{shard.name}: {clip.clip_id}.{extension} lies at {actual_place}, the index says {place}"
                )
    problems += [f"{shard.name}: {key}.{extension} is in the tar and not in the index" for key, extension in found]
    return problems


def _check_sums(tar: Path, shard: ShardFile, clips: Sequence[PackedClip]) -> list[str]:
    """Do the media have the checksums that readers compare them with?"""
    problems = []
    with tar.open("rb") as file:
        for clip in clips:
            actual = 0
            for kinds in (PICTURE_MEMBERS, AUDIO_EXTENSIONS):
                for offset, size in (clip.members[kind] for kind in kinds if kind in clip.members):
                    file.seek(offset)
                    actual = zlib.crc32(file.read(size), actual)
            if clip.crc32 is not None and actual != clip.crc32:
                problems.append(
                    f"{shard.name}: the media of {clip.clip_id!r} have CRC-32 {actual}, the index says {clip.crc32}; "
                    "copy or write it again"
                )
    return problems


def _decode_some(path: str | os.PathLike[str], count: int, seed: int) -> tuple[int, list[str]]:
    """Decode clips at random; how many were tried, and what went wrong."""
    try:
        source = ShardSource(path)
    except ValueError as error:
        return 0, [f"no clip was decoded: {error}"]
    chosen = generator("verify", seed).permutation(len(source))[:count]
    problems = []
    for number in chosen.tolist():
        try:
            clip = source.read(number)
            decode_clip(
                clip.video, clip.audio, spec=InputSpec(), span_s=clip.span_s, square=clip.square, name=clip.clip_id
            )
        except (DecodeError, ClipUnreadableError) as error:
            problems.append(f"clip {source.info(number).clip_id!r} cannot be decoded: {error}")
    return len(chosen), problems
