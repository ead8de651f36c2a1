"""One clip as members of a shard: its original bytes, probed, and what the index says of it."""

from __future__ import annotations

import json
import zlib

from hicmae.data.manifest import Clip
from hicmae.data.packed import PackedClip, Reject
from hicmae.data.tar_members import AUDIO_EXTENSIONS, MAX_MEMBER_BYTES, VIDEO_EXTENSIONS
from hicmae.media.clip import DecodeError, MediaInfo
from hicmae.media.decode import probe


def pack_clip(clip: Clip) -> tuple[PackedClip, dict[str, bytes]] | Reject:
    """Members of a clip and what the index says of it, or why it is not packed."""
    members: dict[str, bytes] = {}
    infos: dict[str, MediaInfo] = {}
    crc = 0
    try:
        for role, path, known in (("video", clip.video, VIDEO_EXTENSIONS), ("audio", clip.audio, AUDIO_EXTENSIONS)):
            if path is None:
                continue
            extension = path.suffix.lower().removeprefix(".")
            if extension not in known:
                found = f"{path.name}: a file in column {role} ends in {', '.join('.' + name for name in known)}"
                return Reject(clip_id=clip.clip_id, reason="unknown_extension", detail=found)
            data = path.read_bytes()
            if len(data) > MAX_MEMBER_BYTES:
                found = f"{path.name} has {len(data)} bytes, over {MAX_MEMBER_BYTES}; cut it into clips"
                return Reject(clip_id=clip.clip_id, reason="too_large", detail=found)
            infos[role] = probe(data, name=str(path))
            crc = zlib.crc32(data, crc)
            members[extension] = data
    except DecodeError as error:
        return Reject(clip_id=clip.clip_id, reason=error.reason, detail=str(error))
    except FileNotFoundError as error:
        return Reject(clip_id=clip.clip_id, reason="missing_file", detail=str(error))
    except Exception as error:
        error.add_note(f"while packing clip {clip.clip_id!r} ({clip.video or clip.audio})")
        raise
    problem = _unfit(clip, infos)
    if problem is not None:
        return problem
    main = infos.get("video") or infos["audio"]
    span = clip.span_s or (0.0, main.duration_s)
    packed = PackedClip(
        clip_id=clip.clip_id,
        members={},
        subject=clip.subject,
        split=clip.split,
        labels=clip.labels,
        start_s=clip.start_s,
        end_s=clip.end_s,
        duration_s=round(min(span[1], main.duration_s) - span[0], 3),
        has_video="video" in infos,
        has_audio=infos["audio"].has_audio if "audio" in infos else main.has_audio,
        crc32=crc,
    )
    description = {name: value for name, value in packed.to_dict().items() if name != "members"}
    members["json"] = json.dumps(description, sort_keys=True).encode("utf-8")
    return packed, members


def _unfit(clip: Clip, infos: dict[str, MediaInfo]) -> Reject | None:
    """Media that decode but are not what the manifest says they are."""
    if "video" in infos and not infos["video"].has_video:
        detail = f"{clip.video} has no video stream; name it in column audio when only its sound is meant"
        return Reject(clip_id=clip.clip_id, reason="no_video_stream", detail=detail)
    if "audio" in infos and not infos["audio"].has_audio:
        return Reject(clip_id=clip.clip_id, reason="no_audio_stream", detail=f"{clip.audio} holds no sound")
    duration = (infos.get("video") or infos["audio"]).duration_s
    if clip.start_s is not None and clip.start_s >= duration:
        detail = f"start_s {clip.start_s:g} is not before the end of the file at {duration:.3f} s"
        return Reject(clip_id=clip.clip_id, reason="span_outside", detail=detail)
    return None
