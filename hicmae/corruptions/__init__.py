"""Damage to picture and sound of a window, by name: what a recogniser's robustness is measured with.

>>> from hicmae.corruptions import corruption
>>> corruption("noise").levels
(30.0, 20.0, 10.0, 5.0, 0.0, -5.0)
"""

from __future__ import annotations

import difflib
import math

from hicmae.corruptions.blur import gaussian_blur
from hicmae.corruptions.corruption import Corruption, Media
from hicmae.corruptions.desynchronisation import desynchronise
from hicmae.corruptions.frame_drops import frame_drops
from hicmae.corruptions.low_light import low_light
from hicmae.corruptions.noise import babble, pink_noise, white_noise
from hicmae.corruptions.occlusion import eyes_bar, mouth_bar, random_box
from hicmae.corruptions.reverberation import reverberation
from hicmae.corruptions.sound_coding import band_limit, mu_law
from hicmae.corruptions.video_compression import video_compression

__all__ = ["CORRUPTIONS", "Corruption", "Media", "corruption"]

_RATIOS = (30.0, 20.0, 10.0, 5.0, 0.0, -5.0)
_SHARES = (0.05, 0.1, 0.2, 0.3, 0.4)

_ALL = (
    Corruption(
        name="noise", title="white noise", unit="dB SNR", modalities=("audio",), clean=math.inf, low=-40, high=100,
        levels=_RATIOS, change=white_noise,
    ),
    Corruption(
        name="pink", title="pink noise", unit="dB SNR", modalities=("audio",), clean=math.inf, low=-40, high=100,
        levels=_RATIOS, change=pink_noise,
    ),
    Corruption(
        name="babble", title="babble", unit="dB SNR", modalities=("audio",), clean=math.inf, low=-40, high=100,
        levels=_RATIOS, change=babble,
    ),
    Corruption(
        name="reverberation", title="reverberation", unit="s RT60", modalities=("audio",), clean=0, low=0.05, high=5,
        levels=(0.25, 0.5, 1.0, 2.0), change=reverberation,
    ),
    Corruption(
        name="band_limit", title="band limit", unit="Hz", modalities=("audio",), clean=8000, low=50, high=8000,
        levels=(4000, 2000, 1000, 500), change=band_limit,
    ),
    Corruption(
        name="mu_law", title="mu-law sound", unit="bits", modalities=("audio",), clean=16, low=1, high=16,
        levels=(8, 6, 4, 3, 2), change=mu_law, whole=True,
    ),
    Corruption(
        name="blur", title="Gaussian blur", unit="px of 160", modalities=("video",), clean=0, low=0.25, high=40,
        levels=(1, 2, 4, 8, 16), change=gaussian_blur,
    ),
    Corruption(
        name="low_light", title="low light", unit="stops", modalities=("video",), clean=0, low=0.25, high=12,
        levels=(1, 2, 3, 4, 5, 6), change=low_light,
    ),
    Corruption(
        name="occlusion", title="box anywhere", unit="of the area", modalities=("video",), clean=0, low=0.01, high=1,
        levels=(0.1, 0.2, 0.3, 0.4, 0.5), change=random_box,
    ),
    Corruption(
        name="occlusion_eyes", title="bar over the eyes", unit="of the area", modalities=("video",), clean=0, low=0.01,
        high=1, levels=_SHARES, change=eyes_bar,
    ),
    Corruption(
        name="occlusion_mouth", title="bar over the mouth", unit="of the area", modalities=("video",), clean=0,
        low=0.01, high=1, levels=_SHARES, change=mouth_bar,
    ),
    Corruption(
        name="video_compression", title="H.264", unit="CRF", modalities=("video",), clean=0, low=1, high=51,
        levels=(23, 30, 37, 44, 51), change=video_compression, whole=True,
    ),
    Corruption(
        name="frame_drops", title="lost frames", unit="of the frames", modalities=("video",), clean=0, low=0.01,
        high=1, levels=(0.2, 0.4, 0.6, 0.8, 1.0), change=frame_drops,
    ),
    Corruption(
        name="desynchronisation", title="late sound", unit="s", modalities=("video", "audio"), clean=0, low=-10,
        high=10, levels=(-1.0, -0.5, -0.25, 0.25, 0.5, 1.0), change=desynchronise,
    ),
)  # fmt: skip

CORRUPTIONS: dict[str, Corruption] = {one.name: one for one in _ALL}
"""All of them, by name."""


def corruption(name: str) -> Corruption:
    """The corruption of this name; an unknown one raises ``ValueError`` with the nearest and with all there are."""
    if name not in CORRUPTIONS:
        near = difflib.get_close_matches(name, CORRUPTIONS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no corruption is called {name!r}{hint} Known: {', '.join(CORRUPTIONS)}")
    return CORRUPTIONS[name]
