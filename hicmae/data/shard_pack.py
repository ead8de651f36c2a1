"""One clip as members of a shard, its original bytes or re-encoded, and what the index says of it."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import av.error

from hicmae.data.manifest import Clip
from hicmae.data.packed import PackedClip, Reject
from hicmae.data.storage import StorageFormat
from hicmae.data.tar_members import AUDIO_EXTENSIONS, MAX_MEMBER_BYTES, PICTURE_MEMBERS
from hicmae.media.clip import DecodeError, MediaInfo
from hicmae.media.decode import probe
from hicmae.media.encode import encode_clip
from hicmae.media.quality import ClipQuality, measure_quality


@dataclass(frozen=True, kw_only=True)
class PackedMembers:
    """A clip that is fit to be stored."""

    clip: PackedClip
    """Without the places of its members, which nobody knows yet."""
    members: dict[str, bytes]
    """By extension, in the order in which they go into the tar."""
    quality: ClipQuality | None = None
    """What re-encoding cost, where that was measured."""


class _Unfit(Exception):
    """A clip is not packed, for a reason."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def pack_clip(clip: Clip, storage: StorageFormat, *, measure: bool = False) -> PackedMembers | Reject:
    """Members of a clip and what the index says of it, or why it is not packed.

    Args:
        clip: a row of the manifest.
        storage: how it is stored.
        measure: whether to compare what is stored with its original, when it is re-encoded.
    """
    try:
        video = _read(clip.video, "video", PICTURE_MEMBERS)
        audio = _read(clip.audio, "audio", AUDIO_EXTENSIONS)
        if storage.video == "original":
            return _keep(clip, video, audio, storage)
        return _encode(clip, video, audio, storage, measure)
    except (DecodeError, _Unfit) as error:
        detail = error.detail if isinstance(error, _Unfit) else str(error)
        return Reject(clip_id=clip.clip_id, reason=error.reason, detail=detail)
    except FileNotFoundError as error:
        return Reject(clip_id=clip.clip_id, reason="missing_file", detail=str(error))
    except Exception as error:
        error.add_note(f"while packing clip {clip.clip_id!r} ({clip.video or clip.audio})")
        raise


def _read(path: Path | None, column: str, known: tuple[str, ...]) -> bytes | None:
    if path is None:
        return None
    if path.suffix.lower().removeprefix(".") not in known:
        found = f"{path.name}: a file in column {column} ends in {', '.join('.' + name for name in known)}"
        raise _Unfit("unknown_extension", found)
    size = path.stat().st_size
    if size > MAX_MEMBER_BYTES:
        raise _Unfit("too_large", f"{path.name} has {size} bytes, over {MAX_MEMBER_BYTES}; cut it into clips")
    return path.read_bytes()


def _keep(clip: Clip, video: bytes | None, audio: bytes | None, storage: StorageFormat) -> PackedMembers:
    """The original files, probed."""
    members: dict[str, bytes] = {}
    infos: dict[str, MediaInfo] = {}
    for role, path, data in (("video", clip.video, video), ("audio", clip.audio, audio)):
        if path is not None and data is not None:
            infos[role] = probe(data, name=str(path))
            members[path.suffix.lower().removeprefix(".")] = data
    _check(clip, infos, clip.square or storage.square)
    main = infos.get("video") or infos["audio"]
    span = clip.span_s or (0.0, main.duration_s)
    return _described(
        clip,
        members,
        start_s=clip.start_s,
        end_s=clip.end_s,
        square=clip.square,
        duration_s=min(span[1], main.duration_s) - span[0],
        has_video="video" in infos,
        has_audio=infos["audio"].has_audio if "audio" in infos else main.has_audio,
    )


def _encode(
    clip: Clip, video: bytes | None, audio: bytes | None, storage: StorageFormat, measure: bool
) -> PackedMembers:
    """The clip's span alone, re-encoded; both members begin at 0 s."""
    assert storage.video != "original"
    assert storage.audio != "original"
    name = str(clip.video or clip.audio)
    square = clip.square or storage.square
    try:
        stored = encode_clip(
            video, audio, span_s=clip.span_s, video_format=storage.video, audio_format=storage.audio,
            size=storage.size, square=square, name=name,
        )  # fmt: skip
    except DecodeError:
        raise
    except (av.error.FFmpegError, ValueError, ArithmeticError) as error:
        raise _Unfit("encode_failed", f"{name} cannot be encoded: {error!r}") from error
    if video is not None and not stored.has_video:
        raise _Unfit("no_video_stream", _no_picture(clip))
    if audio is not None and not stored.has_audio and not probe(audio, name=str(clip.audio)).has_audio:
        raise _Unfit("no_audio_stream", f"{clip.audio} holds no sound")
    quality = None
    if measure:
        quality = measure_quality(video, audio, stored, span_s=clip.span_s, size=storage.size, square=square, name=name)
    members = {stored.video_extension: stored.video, stored.audio_extension: stored.audio}
    return _described(
        clip,
        {extension: data for extension, data in members.items() if data is not None},
        start_s=None,
        end_s=None,
        square=None,
        duration_s=stored.duration_s,
        has_video=stored.has_video,
        has_audio=stored.has_audio,
        quality=quality,
    )


def _described(
    clip: Clip,
    media: dict[str, bytes],
    *,
    start_s: float | None,
    end_s: float | None,
    square: tuple[int, int, int] | None,
    duration_s: float,
    has_video: bool,
    has_audio: bool,
    quality: ClipQuality | None = None,
) -> PackedMembers:
    """The media, picture first, with the description that goes beside them."""
    crc = 0
    for data in media.values():
        crc = zlib.crc32(data, crc)
    packed = PackedClip(
        clip_id=clip.clip_id,
        members={},
        subject=clip.subject,
        split=clip.split,
        labels=clip.labels,
        start_s=start_s,
        end_s=end_s,
        square=square,
        duration_s=round(duration_s, 3),
        has_video=has_video,
        has_audio=has_audio,
        crc32=crc,
    )
    description = {name: value for name, value in packed.to_dict().items() if name != "members"}
    members = media | {"json": json.dumps(description, sort_keys=True).encode("utf-8")}
    return PackedMembers(clip=packed, members=members, quality=quality)


def _check(clip: Clip, infos: dict[str, MediaInfo], square: tuple[int, int, int] | None) -> None:
    """Media that decode but are not what the manifest says they are, or too small for the square."""
    if "video" in infos and not infos["video"].has_video:
        raise _Unfit("no_video_stream", _no_picture(clip))
    if "audio" in infos and not infos["audio"].has_audio:
        raise _Unfit("no_audio_stream", f"{clip.audio} holds no sound")
    main = infos.get("video") or infos["audio"]
    if clip.start_s is not None and clip.start_s >= main.duration_s:
        detail = f"start_s {clip.start_s:g} is not before the end of the file at {main.duration_s:.3f} s"
        raise _Unfit("span_outside", detail)
    if square is not None and main.has_video:
        top, left, side = square
        if top + side > main.height or left + side > main.width:
            detail = f"{clip.video} shows {main.width}x{main.height}, too small for the square {square}"
            raise _Unfit("square_outside", detail)


def _no_picture(clip: Clip) -> str:
    return f"{clip.video} has no video stream; name it in column audio when only its sound is meant"
