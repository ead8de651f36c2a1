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
from hicmae.media.pyav_decoder import Deliver


def decode_frames_with_decord(
    data: bytes, track: Track, frames: npt.NDArray[np.int64], deliver: Deliver, name: str
) -> None:
    """The same frames as ``pyav_decoder.decode_frames`` gives, from the same (complete) file.

    Raises:
        ValueError: decord is not installed.
        DecodeError: ``decord_timeline`` when decord's frame times are not those of the file (it ignores what an
            edit list hides), ``corrupt_frames`` when it fails.
    """
    try:
        import decord
    except ImportError as error:
        raise ValueError(
            "decoder='decord' needs the package decord: install hicmae[decord], or set decoder='auto'"
        ) from error
    if track.counted:
        raise _other_timeline(name, "an AVI file with reordered frames has no presentation times to go by")
    if len(track.kept) != len(track.packets):
        raise _other_timeline(name, "an edit list hides some of its frames, which decord would show")
    try:
        reader = decord.VideoReader(io.BytesIO(data), num_threads=1)
        if len(reader) != len(track.kept):
            raise _other_timeline(name, f"decord counts {len(reader)} frames, the file holds {len(track.kept)}")
        starts = np.asarray(reader.get_frame_timestamp(range(len(reader))))[:, 0].astype(np.float64)
        pictures = reader.get_batch(frames).asnumpy()
    except DecodeError:
        raise
    except (decord.DECORDError, RuntimeError, AssertionError, IndexError) as error:
        found = f"decord fails on its picture: {str(error).strip().splitlines()[0]}"
        raise DecodeError(name, "corrupt_frames", found, "try decoder='auto', or drop the file") from None
    # Decord's clock may start elsewhere, so the steps are compared.
    worst = float(np.abs((starts - starts[0]) - (track.times_s - track.times_s[0])).max())
    if not worst <= 0.002:
        raise _other_timeline(name, f"decord's frame times differ from the file's by {worst:.3f} s")
    for number, picture in zip(frames, pictures, strict=True):
        deliver(int(number), picture, 0)  # decord has turned it already


def _other_timeline(name: str, found: str) -> DecodeError:
    return DecodeError(name, "decord_timeline", found, "set decoder='auto' (PyAV), or re-encode the file")
