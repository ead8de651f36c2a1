"""Frames through decord, for those who want it; sound always goes through PyAV.

Decord crashes on files that were cut short, so it is handed only bytes whose packets have been read to the
end already. It cannot report damage inside a packet, as PyAV does.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from hicmae.media.clip import DecodeError
from hicmae.media.container import Track
from hicmae.media.large_file import LargeFile, MediaData
from hicmae.media.pyav_decoder import Deliver


def decode_frames_with_decord(
    data: MediaData, track: Track, frames: npt.NDArray[np.int64], deliver: Deliver, name: str
) -> None:
    """The same frames as ``pyav_decoder.decode_frames`` gives, from the same (complete) file.

    Raises:
        ValueError: decord is not installed.
        DecodeError: ``decord_unsupported`` for files of which decord would show wrong frames (hidden by an edit
            list, open groups of pictures, AVI with reordered frames, other frame times than the file's);
            ``decord_failed`` when it fails.
    """
    try:
        import decord
    except ImportError as error:
        raise ValueError(
            "decoder='decord' needs the package decord: install hicmae[decord], or set decoder='auto'"
        ) from error
    if track.counted:
        raise _unsupported(name, "an AVI file with reordered frames has no presentation times to go by")
    if len(track.kept) != len(track.packets):
        raise _unsupported(name, "an edit list hides some of its frames, which decord would show")
    keys = track.packets.keys_until(len(track.packets) - 1)
    earliest_to_come = np.minimum.accumulate(track.pts[::-1])[::-1]
    if (earliest_to_come < track.pts)[keys].any():
        raise _unsupported(name, "its groups of pictures are open: some frames lean on a key frame after them")
    try:
        reader = decord.VideoReader(str(data.path) if isinstance(data, LargeFile) else io.BytesIO(data), num_threads=1)
        if len(reader) != len(track.kept):
            raise _unsupported(name, f"decord counts {len(reader)} frames, the file holds {len(track.kept)}")
        starts = np.asarray(reader.get_frame_timestamp(range(len(reader))))[:, 0].astype(np.float64)
        pictures = reader.get_batch(frames).asnumpy()
    except DecodeError:
        raise
    except (decord.DECORDError, RuntimeError, AssertionError, IndexError) as error:
        found = f"decord fails on its picture: {str(error).strip().splitlines()[0]}"
        raise DecodeError(name, "decord_failed", found, "set decoder='auto' (PyAV), or drop the file") from None
    stored = (track.stream.height, track.stream.width)
    if pictures.shape[1:3] != stored and track.stream.sample_aspect_ratio not in (None, 0, 1):
        raise _unsupported(name, "its pixels are not square and its picture is turned")
    # Decord's clock may start elsewhere, so the steps are compared.
    worst = float(np.abs((starts - starts[0]) - (track.times_s - track.times_s[0])).max())
    if not worst <= 0.002:
        raise _unsupported(name, f"decord's frame times differ from the file's by {worst:.3f} s")
    for number, picture in zip(frames, pictures, strict=True):
        deliver(int(number), picture, 0)  # decord has turned it already


def _unsupported(name: str, found: str) -> DecodeError:
    return DecodeError(name, "decord_unsupported", found, "set decoder='auto' (PyAV), or re-encode the file")
