"""The eight acted emotions: where they lie in the valence-arousal plane and how a face shows them.

The plane is a grid of four valences and two arousals, so that every category has one partner with the same
valence and three companions with nearly the same arousal::

                 valence -0.8   -0.4       0.05        0.7
    aroused      angry          fearful    surprised   happy
    quiet        sad            disgust    neutral     calm

The face shows mainly the column and the voice mainly the row (``performance.py`` blurs the rest), which is why
one modality alone cannot name the emotion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FACE_CUES = (
    "brow_inner",  # inner ends of the brows, + up
    "brow_outer",  # outer ends of the brows, + up
    "pinch",  # brows drawn together
    "lid",  # upper lids, + wide, - drooping
    "squint",  # lower lids pushed up
    "smile",  # mouth corners, + up
    "width",  # mouth stretched
    "jaw",  # mouth held open beyond what speech asks for
    "sneer",  # upper lip raised, nose wrinkled
    "press",  # lips pressed thin
    "pitch",  # head, + chin up
    "tilt",  # head tilted to a shoulder
    "lean",  # towards the camera
)
"""Coordinates of an expression; about 1 is as strong as acted expressions get."""


@dataclass(frozen=True, kw_only=True)
class Emotion:
    """One category. ``valence`` and ``arousal`` are on the scale -1..1, ``rise_s`` is seconds from onset to apex."""

    name: str
    valence: float
    arousal: float
    rise_s: float
    partner: str
    """The category with the same valence and the other arousal."""
    face: dict[str, float]
    """Full-strength expression; cues not named are 0."""
    motion: dict[str, float]
    """Extra head motion: ``nod`` and ``shake`` follow the syllables' stress, ``tremble`` is fast and small."""
    tremor: float = 0.0
    """Tremor of the pitch, in semitones."""

    def expression(self) -> np.ndarray:
        """The full-strength expression as a float64 vector in the order of ``FACE_CUES``."""
        return np.array([self.face.get(cue, 0.0) for cue in FACE_CUES])


EMOTIONS: dict[str, Emotion] = {
    emotion.name: emotion
    for emotion in (
        Emotion(
            name="neutral", valence=0.05, arousal=-0.55, rise_s=0.5, partner="surprised", face={}, motion={}
        ),
        Emotion(
            name="calm", valence=0.7, arousal=-0.6, rise_s=0.7, partner="happy",
            face=dict(smile=0.6, lid=-0.35, squint=0.25, brow_inner=0.1, brow_outer=0.1, width=0.1, tilt=0.3),
            motion=dict(nod=0.2),
        ),
        Emotion(
            name="happy", valence=0.7, arousal=0.6, rise_s=0.35, partner="calm",
            face=dict(smile=1.0, width=0.55, squint=0.55, jaw=0.3, brow_inner=0.3, brow_outer=0.35, sneer=0.1,
                      pitch=0.25, tilt=0.2),
            motion=dict(nod=0.8),
        ),
        Emotion(
            name="sad", valence=-0.8, arousal=-0.6, rise_s=0.8, partner="angry",
            face=dict(brow_inner=0.85, brow_outer=-0.45, pinch=0.35, lid=-0.55, smile=-0.85, width=-0.2, pitch=-0.8,
                      tilt=0.3, lean=-0.2),
            motion={},
        ),
        Emotion(
            name="angry", valence=-0.8, arousal=0.7, rise_s=0.3, partner="sad",
            face=dict(brow_inner=-1.0, brow_outer=0.25, pinch=1.0, lid=0.2, squint=0.5, smile=-0.7, press=0.5,
                      sneer=0.25, width=0.15, pitch=-0.3, lean=0.6),
            motion=dict(nod=0.7, shake=0.2),
        ),
        Emotion(
            name="fearful", valence=-0.4, arousal=0.65, rise_s=0.3, partner="disgust",
            face=dict(brow_inner=0.85, brow_outer=0.3, pinch=0.6, lid=1.0, smile=-0.4, width=0.5, jaw=0.35, lean=-0.6),
            motion=dict(tremble=1.0), tremor=0.7,
        ),
        Emotion(
            name="disgust", valence=-0.4, arousal=-0.45, rise_s=0.5, partner="fearful",
            face=dict(brow_inner=-0.5, brow_outer=-0.2, pinch=0.5, lid=-0.35, squint=0.7, smile=-0.45, sneer=1.0,
                      pitch=0.45, tilt=0.4, lean=-0.3),
            motion=dict(shake=0.5),
        ),
        Emotion(
            name="surprised", valence=0.05, arousal=0.7, rise_s=0.15, partner="neutral",
            face=dict(brow_inner=1.0, brow_outer=1.0, lid=0.9, jaw=0.75, width=-0.35, pitch=0.35, lean=0.1),
            motion=dict(nod=0.1),
        ),
    )
}  # fmt: skip
"""By name, in the order used for tables and figures."""
