"""Who speaks: how the face looks at rest and how the voice sounds, drawn once per speaker."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from hicmae.data.synthetic.emotions import FACE_CUES
from hicmae.data.synthetic.seeding import generator_for

Colour = tuple[float, float, float]
"""Red, green and blue on the scale 0..1."""

HAIR_STYLES = ("short", "parted", "fringe", "long", "curly", "bald", "bun")
BEARDS = ("none", "stubble", "full", "moustache")
COLLARS = ("round", "v", "shirt", "scarf")

_SKINS: tuple[Colour, ...] = (
    (0.97, 0.83, 0.73), (0.93, 0.75, 0.62), (0.86, 0.66, 0.50), (0.76, 0.55, 0.40),
    (0.62, 0.42, 0.29), (0.46, 0.30, 0.21),
)  # fmt: skip
_HAIRS: tuple[Colour, ...] = (
    (0.10, 0.08, 0.08), (0.22, 0.14, 0.09), (0.38, 0.23, 0.12), (0.56, 0.32, 0.14),
    (0.80, 0.64, 0.35), (0.62, 0.61, 0.60), (0.55, 0.18, 0.12),
)  # fmt: skip
_EYES: tuple[Colour, ...] = ((0.30, 0.18, 0.10), (0.22, 0.36, 0.55), (0.25, 0.42, 0.28), (0.42, 0.33, 0.18))


@dataclass(frozen=True, kw_only=True)
class Look:
    """A face at rest. Lengths are in half head heights (chin to crown is 2)."""

    half_width: float
    jaw: float
    """How much narrower the chin is than the temples, 0..0.4."""
    skin: Colour
    hair: Colour
    hair_style: str
    hair_line: float
    """Height of the hair line (negative is up)."""
    iris: Colour
    eye_spacing: float
    eye_width: float
    eye_height: float
    eye_cant: float
    """Slant of the eyes; positive lifts the outer corners."""
    brow_thickness: float
    brow_arch: float
    brow_gap: float
    """From the eye's centre up to the brow."""
    nose_width: float
    nose_length: float
    mouth_width: float
    mouth_height: float
    """Height of the mouth's centre below the face's centre."""
    lip_thickness: float
    lip: Colour
    beard: str
    glasses: float
    """Radius of round glasses; 0 for none."""
    clothes: Colour
    collar: str
    shoulder_width: float
    rest: tuple[float, ...]
    """What this face shows while nothing is felt, in the coordinates ``FACE_CUES``."""
    expressivity: float
    """Gain on every expression."""


@dataclass(frozen=True, kw_only=True)
class Voice:
    """A voice at rest."""

    pitch_hz: float
    pitch_range: float
    """Gain on the intonation."""
    formant_scale: float
    """All formants are multiplied by this: a shorter vocal tract is above 1."""
    tilt_db_per_octave: float
    tempo_hz: float
    """Syllables a second."""
    breath: float
    """Aspiration noise against voicing, 0..1."""
    level_db: float
    """Loudness against other speakers."""
    expressivity: float
    """Gain on every vocal cue."""


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """One person."""

    speaker_id: str
    look: Look
    voice: Voice


def draw_speaker(seed: int, speaker_id: str) -> Speaker:
    """The speaker of this name in the corpus of this seed; the same arguments give an equal speaker."""
    rng = generator_for(seed, "speaker", speaker_id)
    low_voice = rng.random() < 0.5
    return Speaker(speaker_id=speaker_id, look=_draw_look(rng, low_voice), voice=_draw_voice(rng, low_voice))


def _vary(rng: np.random.Generator, centre: float, spread: float) -> float:
    """A normal draw cut at two standard deviations."""
    return float(centre + spread * np.clip(rng.normal(), -2, 2))


def _shade(rng: np.random.Generator, colour: Colour, spread: float = 0.03) -> Colour:
    red, green, blue = np.clip(np.asarray(colour) * (1 + spread * rng.normal()) + rng.normal(0, spread / 3, 3), 0.04, 1)
    return float(red), float(green), float(blue)


def _draw_look(rng: np.random.Generator, low_voice: bool) -> Look:
    # Cast before use: choices are made by index so that the draw does not depend on numpy's string handling.
    skin_index = int(rng.integers(len(_SKINS)))
    skin = _shade(rng, _SKINS[skin_index])
    hair = _shade(rng, _HAIRS[int(rng.integers(3 if skin_index >= 3 else len(_HAIRS)))], 0.08)
    styles = (
        ("short", "parted", "short", "curly", "bald", "fringe")
        if low_voice
        else ("long", "fringe", "bun", "parted", "long", "curly")
    )
    beards = ("none", "stubble", "full", "moustache", "none") if low_voice else ("none",)
    red, green, blue = skin
    tint = rng.uniform(0.35, 0.75) if not low_voice else rng.uniform(0.15, 0.4)
    lip_target = (0.74, 0.28, 0.28)
    lip = tuple(
        float(0.85 * (1 - tint) * s + tint * t)
        for s, t in zip((red, green * 0.85, blue * 0.85), lip_target, strict=True)
    )
    rest = np.clip(rng.normal(0, 0.13, len(FACE_CUES)), -0.26, 0.26)
    return Look(
        half_width=_vary(rng, 0.77 if low_voice else 0.74, 0.035),
        jaw=float(np.clip(_vary(rng, 0.14 if low_voice else 0.24, 0.06), 0.02, 0.38)),
        skin=skin,
        hair=hair,
        hair_style=styles[int(rng.integers(len(styles)))],
        hair_line=_vary(rng, -0.62, 0.05),
        iris=_shade(rng, _EYES[int(rng.integers(len(_EYES)))], 0.08),
        eye_spacing=_vary(rng, 0.325, 0.016),
        eye_width=_vary(rng, 0.168, 0.010),
        eye_height=_vary(rng, 0.095, 0.009),
        eye_cant=_vary(rng, 0.05, 0.06),
        brow_thickness=_vary(rng, 0.075 if low_voice else 0.05, 0.012),
        brow_arch=_vary(rng, 0.035 if low_voice else 0.06, 0.015),
        brow_gap=_vary(rng, 0.245, 0.018),
        nose_width=_vary(rng, 0.135, 0.018),
        nose_length=_vary(rng, 0.31, 0.025),
        mouth_width=_vary(rng, 0.27, 0.02),
        mouth_height=_vary(rng, 0.59, 0.02),
        lip_thickness=_vary(rng, 0.05 if low_voice else 0.062, 0.010),
        lip=(lip[0], lip[1], lip[2]),
        beard=beards[int(rng.integers(len(beards)))],
        glasses=float(rng.uniform(0.22, 0.26)) if rng.random() < 0.25 else 0.0,
        clothes=colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.25, 0.8), rng.uniform(0.25, 0.85)),
        collar=COLLARS[int(rng.integers(len(COLLARS)))],
        shoulder_width=_vary(rng, 1.75 if low_voice else 1.5, 0.1),
        rest=tuple(float(value) for value in rest),
        expressivity=_vary(rng, 0.9, 0.12),
    )


def _draw_voice(rng: np.random.Generator, low_voice: bool) -> Voice:
    return Voice(
        pitch_hz=float(np.exp(_vary(rng, np.log(115 if low_voice else 205), 0.13))),
        pitch_range=_vary(rng, 1.0, 0.12),
        formant_scale=_vary(rng, 0.94 if low_voice else 1.10, 0.035),
        tilt_db_per_octave=_vary(rng, -4.2, 0.8),
        tempo_hz=_vary(rng, 4.3, 0.28),
        breath=float(np.clip(_vary(rng, 0.12, 0.05), 0.02, 0.3)),
        level_db=_vary(rng, 0.0, 1.5),
        expressivity=_vary(rng, 1.0, 0.12),
    )
