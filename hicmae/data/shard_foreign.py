"""An index for WebDataset tars that others made."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hicmae import __version__
from hicmae.data.manifest import END_OF_FILE_S, NUMBER_LABELS, id_problem
from hicmae.data.packed import PackedClip, Reject, Shard
from hicmae.data.shard_index import INDEX_NAME, ShardIndex
from hicmae.data.tar_members import (
    AUDIO_EXTENSIONS,
    MAX_MEMBER_BYTES,
    PICTURE_MEMBERS,
    TarMember,
    refusal,
    scan_tar,
    split_member_name,
)
from hicmae.file_digest import sha256_of

_CHUNK = 1 << 20


def index_foreign(folder: str | os.PathLike[str], *, on_shard: Callable[[str], None] | None = None) -> ShardIndex:
    """Index WebDataset tars from elsewhere, without changing them; writes ``index.json`` and ``rejects.csv``.

    A sample needs one media member with a known extension; a ``json`` member may give ``subject``, ``split``,
    ``start_s``, ``end_s``, ``square`` and ``labels`` (a mapping). Slashes in keys become ``_`` in clip ids. Samples
    that are unnamed, incomplete, repeated, or hold members of other kinds are left out and listed with their reasons.

    Raises:
        FileNotFoundError: no tars. FileExistsError: there is an index already.
    """
    folder = Path(folder)
    tars = sorted(folder.glob("*.tar"))
    if not tars:
        raise FileNotFoundError(f"{folder}: no .tar files here")
    if (folder / INDEX_NAME).exists():
        raise FileExistsError(f"{folder / INDEX_NAME} exists already; remove it to index the tars again")
    shards, rejected, seen = [], list[Reject](), set[str]()
    for path in tars:
        members, problem = scan_tar(path)
        if problem:
            rejected.append(Reject(clip_id=path.name, reason="shard_damaged", detail=f"{path.name}: {problem}"))
        clips = []
        for key, group in _group(members):
            clip = _foreign_clip(path, key, group, seen)
            if isinstance(clip, Reject):
                rejected.append(clip)
            else:
                seen.add(clip.clip_id)
                clips.append(clip)
        if clips:
            shards.append(Shard(name=path.name, bytes=path.stat().st_size, sha256=sha256_of(path), clips=tuple(clips)))
        if on_shard:
            on_shard(path.name)
    made_by = {"hicmae": __version__, "command": "shards index"}
    index = ShardIndex.build(shards, rejected=tuple(rejected), made_by=made_by)
    index.write(folder)
    return index


def _group(members: Iterable[TarMember]) -> Iterator[tuple[str, list[tuple[str, TarMember]]]]:
    """Consecutive members with the same key: WebDataset's samples."""
    key, group = None, list[tuple[str, TarMember]]()
    for member in members:
        own_key, extension = split_member_name(member.name) or (member.name, "")
        if own_key != key:
            if key is not None:
                yield key, group
            key, group = own_key, []
        group.append((extension, member))
    if key is not None:
        yield key, group


def _foreign_clip(tar: Path, key: str, group: Sequence[tuple[str, TarMember]], seen: set[str]) -> PackedClip | Reject:
    clip_id = key.strip("/").replace("/", "_")

    def reject(reason: str, detail: str) -> Reject:
        return Reject(clip_id=key, reason=reason, detail=f"{tar.name}: {detail}")

    if problem := id_problem(clip_id):
        return reject("unsafe_name", problem)
    if clip_id in seen:
        return reject("duplicate_id", f"clip {clip_id!r} occurs again; its first occurrence is used")
    for extension, member in group:
        if problem := refusal(extension):
            return reject("refused_member", f"{member.name!r}: {problem}")
        if member.size > MAX_MEMBER_BYTES:
            return reject("too_large", f"{member.name!r} has {member.size} bytes; at most {MAX_MEMBER_BYTES} are read")
    extensions = [extension for extension, _ in group]
    media = [extension for extension in extensions if extension != "json"]
    videos = [extension for extension in media if extension in PICTURE_MEMBERS]
    if not media or len(videos) > 1 or len(media) - len(videos) > 1 or len(set(extensions)) < len(extensions):
        return reject(
            "ambiguous_members", f"members {extensions}; a clip has one picture file, one sound file, or both"
        )
    places = {extension: (member.offset, member.size) for extension, member in group}
    values: dict[str, Any] = {}
    if "json" in places:
        with tar.open("rb") as file:
            file.seek(places["json"][0])
            data = file.read(places["json"][1])
        try:
            values = _metadata(json.loads(data))
        except (ValueError, TypeError) as error:
            return reject("bad_json", f"{key}.json: {error}")
    media_places = [places[e] for e in (*PICTURE_MEMBERS, *AUDIO_EXTENSIONS) if e in places]  # picture, then sound
    return PackedClip(clip_id=clip_id, members=places, crc32=_crc32(tar, media_places), **values)


def _crc32(tar: Path, places: Iterable[tuple[int, int]]) -> int:
    crc = 0
    with tar.open("rb") as file:
        for offset, size in places:
            file.seek(offset)
            while size > 0 and (data := file.read(min(size, _CHUNK))):
                crc = zlib.crc32(data, crc)
                size -= len(data)
    return crc


def _metadata(values: Any) -> dict[str, Any]:
    """What a sample's json member says in our terms; other keys are not ours to judge."""
    if not isinstance(values, Mapping):
        raise TypeError("not a mapping")
    known: dict[str, Any] = {name: str(values[name]) for name in ("subject", "split") if values.get(name) is not None}
    for name in ("start_s", "end_s", "duration_s"):
        if values.get(name) is not None:
            known[name] = float(values[name])
    start, end = known.get("start_s", 0.0), known.get("end_s", END_OF_FILE_S)
    if not (0 <= start < end < math.inf):
        raise ValueError(f"a span from {start:g} to {end:g} s cannot be")
    if values.get("square") is not None:
        top, left, side = (int(value) for value in values["square"])
        if min(top, left) < 0 or side < 1:
            raise ValueError(f"a square of (top, left, side) {top, left, side} cannot be")
        known["square"] = top, left, side
    for name in ("has_video", "has_audio"):
        if isinstance(values.get(name), bool):
            known[name] = values[name]
    labels = values.get("labels") or {}
    if not isinstance(labels, Mapping):
        raise TypeError("labels is not a mapping")
    known["labels"] = {
        str(name): float(value) if name in NUMBER_LABELS else str(value)
        for name, value in labels.items()
        if value is not None
    }
    return known
