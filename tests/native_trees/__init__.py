"""All eleven corpora in miniature: right names, right label files, tiny films and sounds.

A builder makes the tree of a corpus below a folder and returns what its parser must find there. What is expected is
written out there, and shares nothing with the parsers but the types.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hicmae.benchmarks.card import Native
from tests.native_trees.media import (
    FRAMES,
    SECONDS,
    face_frame,
    film,
    png_frame,
    put,
    put_frames,
    silent_film,
    sound,
    split_screen,
    write,
    write_lines,
)  # fmt: skip
from tests.native_trees.speakers import (
    build_crema_d,
    build_crema_d_4,
    build_iemocap,
    build_msp_improv,
    build_ravdess,
    write_faces,
)  # fmt: skip
from tests.native_trees.wild import (
    AVCAFFE_TEST,
    MAFW_COMPOUND_LABELS,
    MAFW_LABELS,
    build_avcaffe,
    build_dfew,
    build_dfew_frames,
    build_mafw,
    build_mafw_compound,
    build_mafw_frames,
    build_mer2023,
    build_werewolf_xl,
)  # fmt: skip

SPEAKERS: dict[str, Callable[[Path], Native]] = {
    "crema_d": build_crema_d,
    "crema_d_4": build_crema_d_4,
    "ravdess": build_ravdess,
    "msp_improv": build_msp_improv,
    "iemocap": build_iemocap,
}
"""Corpora of known speakers, whose clips are known by the names of their files or by a label file of one line each."""
WILD: dict[str, Callable[[Path], Native]] = {
    "mafw": build_mafw,
    "mafw_compound": build_mafw_compound,
    "dfew": build_dfew,
    "mer2023": build_mer2023,
    "avcaffe": build_avcaffe,
    "werewolf_xl": build_werewolf_xl,
}
"""Corpora with lists of their own."""
BUILDERS: dict[str, Callable[[Path], Native]] = SPEAKERS | WILD
"""Name of a card -> what makes its tree, and returns what must be found in it."""

__all__ = [
    "AVCAFFE_TEST", "BUILDERS", "FRAMES", "MAFW_COMPOUND_LABELS", "MAFW_LABELS", "SECONDS", "SPEAKERS", "WILD",
    "build_avcaffe", "build_crema_d", "build_crema_d_4", "build_dfew", "build_dfew_frames", "build_iemocap",
    "build_mafw", "build_mafw_compound", "build_mafw_frames", "build_mer2023", "build_msp_improv", "build_ravdess",
    "build_werewolf_xl", "face_frame", "film", "png_frame", "put", "put_frames", "silent_film", "sound",
    "split_screen", "write", "write_faces", "write_lines",
]  # fmt: skip
