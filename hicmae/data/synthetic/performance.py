"""What happens in one clip: the emotion unfolding over the face, the head, the eyes and the voice.

The emotion rises from an onset to an apex and often fades, so a clip is structured in time. The face shows the
valence well and the arousal badly: each clip's expression is mixed with that of the category of equal valence
and other arousal. The voice shows the arousal well and the valence badly. Both start from the speaker's own
resting state and carry noise of their own, so the categories overlap. With ``agreement`` each tells more of what the
other does, as people's faces and voices do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hicmae.data.synthetic.emotions import EMOTIONS, FACE_CUES, Emotion
from hicmae.data.synthetic.seeding import generator_for
from hicmae.data.synthetic.speaker import Speaker, Voice
from hicmae.data.synthetic.speech import CONTROL_HZ, Speech, babble, smooth

FRAMES_PER_SECOND = 25
RESTING_AROUSAL = -0.2
"""Arousal before the emotion sets in."""

VOICE_CUES = ("pitch_log2", "range_semitones", "level_db", "tempo_log2", "tilt_db_per_octave", "breath", "tremor",
              "formant_scale")  # fmt: skip
"""Coordinates of a voice at the apex, as it can be heard (speaker and emotion together)."""

FACE_MIX = 0.75
"""The share of the partner's expression is uniform between 0 and this."""
FACE_NOISE = 0.22
"""Spread of what a clip's expression adds to every cue."""
VOICE_NOISE = 0.20
"""Spread, in units of arousal, of what is common to all vocal cues of a clip."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Performance:
    """One clip, as curves. T frames at 25 a second, N = 8 T control points at ``CONTROL_HZ``; float64."""

    emotion: str
    valence: float
    """-1..1, at the apex."""
    arousal: float
    """-1..1, at the apex."""
    face: np.ndarray
    """(T, len(FACE_CUES)) the expression, the speaker's resting face included."""
    opening: np.ndarray
    """(T,) mouth opening of speech, 0..about 1."""
    rounding: np.ndarray
    """(T,) lips, -1 (spread) to 1 (round)."""
    blink: np.ndarray
    """(T,) 0 (open) to 1 (shut)."""
    gaze: np.ndarray
    """(T, 2) right and down, about -1..1."""
    turn: np.ndarray
    """(T, 3) yaw, pitch and roll of the head, in radians."""
    shift: np.ndarray
    """(T, 3) right, down (in half head heights) and natural logarithm of the size."""
    speech: Speech
    pitch_hz: np.ndarray
    """(N,)."""
    gain: np.ndarray
    """(N,) amplitude of the voice against a voice at rest; ``speech.loudness`` and ``speech.noise`` multiply it."""
    tilt_db_per_octave: np.ndarray
    """(N,)."""
    breath: np.ndarray
    """(N,) aspiration against voicing."""
    formant_scale: float
    face_cues: np.ndarray
    """(len(FACE_CUES),) the face at the apex: what a perfect reader of faces would measure."""
    voice_cues: np.ndarray
    """(len(VOICE_CUES),) the voice at the apex: what a perfect listener would measure."""

    @property
    def frames(self) -> int:
        """Number of video frames, T."""
        return len(self.face)

    @property
    def seconds(self) -> float:
        """Length of the clip."""
        return self.frames / FRAMES_PER_SECOND


def draw_performance(
    speaker: Speaker,
    emotion: str,
    *,
    seed: int,
    clip_id: str,
    seconds: tuple[float, float],
    agreement: float = 0.0,
    intensity: float = 1.0,
) -> Performance:
    """The performance of this clip, a function of the arguments alone.

    ``seconds`` is the range of lengths; the length is rounded to whole frames. ``agreement`` and ``intensity`` as in
    ``CorpusSettings``. Unknown emotions raise ``ValueError``.
    """
    if emotion not in EMOTIONS:
        raise ValueError(f"unknown emotion {emotion!r}; choose one of {', '.join(EMOTIONS)}")
    rng = generator_for(seed, "clip", clip_id)
    kind = EMOTIONS[emotion]
    frames = round(rng.uniform(*seconds) * FRAMES_PER_SECOND)
    count = frames * (CONTROL_HZ // FRAMES_PER_SECOND)
    frame_instants = slice(0, count, CONTROL_HZ // FRAMES_PER_SECOND)

    strength = rng.uniform(0.55, 1.0)
    valence = float(np.clip(0.05 + (kind.valence - 0.05) * (0.45 + 0.55 * strength) + 0.05 * rng.normal(), -1, 1))
    arousal = float(np.clip(0.05 + (kind.arousal - 0.05) * rng.uniform(0.7, 1.0) + 0.05 * rng.normal(), -1, 1))
    unfolding = _unfolding(rng, kind, count)

    look, partner = speaker.look, EMOTIONS[kind.partner]
    mix = (1 - agreement) * rng.uniform(0, FACE_MIX)
    shown = (1 - mix) * kind.expression() + mix * partner.expression()
    apex = intensity * strength * look.expressivity * shown + FACE_NOISE * rng.normal(size=len(FACE_CUES))
    rest = np.asarray(look.rest)
    face = rest + unfolding[frame_instants, None] * apex

    heard = intensity * arousal + VOICE_NOISE * rng.normal()
    excitement = RESTING_AROUSAL + (heard - RESTING_AROUSAL) * unfolding
    own = rng.normal(size=6)
    tempo = speaker.voice.tempo_hz * 2 ** (0.38 * speaker.voice.expressivity * excitement + 0.09 * own[0])
    speech = babble(rng, tempo)
    sound = _draw_voice(rng, speaker.voice, kind, speech, excitement, intensity * valence, own, agreement)
    turn, shift = _draw_head(rng, kind, strength * (1 - mix), speech, face, heard, frames)
    return Performance(
        emotion=emotion,
        valence=valence,
        arousal=arousal,
        face=face,
        opening=speech.opening[frame_instants],
        rounding=speech.rounding[frame_instants],
        blink=_draw_blinks(rng, frames, rate_hz=0.3 + 0.2 * max(0.0, heard)),
        gaze=np.clip(_wander(rng, frames, 2, 0.6) * 0.22 + rng.normal(0, 0.1, 2), -0.8, 0.8),
        turn=turn,
        shift=shift,
        speech=speech,
        pitch_hz=sound["pitch_hz"],
        gain=sound["gain"],
        tilt_db_per_octave=sound["tilt"],
        breath=sound["breath"],
        formant_scale=float(sound["cues"][-1]),
        face_cues=rest + apex,
        voice_cues=np.append(sound["cues"][:3], [np.log2(tempo[int(np.argmax(unfolding))]), *sound["cues"][3:]]),
    )


def _unfolding(rng: np.random.Generator, kind: Emotion, count: int) -> np.ndarray:
    """(N,) from about 0.1 through a rise to 1 at the apex, and for half of the clips down again at the end."""
    length_s = count / CONTROL_HZ
    times = np.arange(count) / CONTROL_HZ
    rise_s = kind.rise_s * float(np.exp(0.3 * rng.normal()))
    onset_s = rng.uniform(0.05, 0.28) * length_s
    rise = 1 / (1 + np.exp(-(times - onset_s - rise_s / 2) * 6 / rise_s))
    curve = 0.08 + 0.92 * rise
    if rng.random() < 0.5:
        fade_s = rng.uniform(0.75, 0.95) * length_s
        curve = curve * (1 - rng.uniform(0.3, 0.7) / (1 + np.exp(-(times - fade_s) * 8)))
    return curve / curve.max()


def _wander(rng: np.random.Generator, frames: int, channels: int, fastest_hz: float) -> np.ndarray:
    """(T, channels) smooth random motion of unit variance: five sines of random frequency and phase."""
    times = np.arange(frames)[:, None, None] / FRAMES_PER_SECOND
    frequency = rng.uniform(0.15, fastest_hz, (1, channels, 5))
    phase = rng.uniform(0, 2 * np.pi, (1, channels, 5))
    return np.sin(2 * np.pi * frequency * times + phase).sum(axis=2) * np.sqrt(2 / 5)


def _draw_blinks(rng: np.random.Generator, frames: int, *, rate_hz: float) -> np.ndarray:
    times, blink = np.arange(frames) / FRAMES_PER_SECOND, np.zeros(frames)
    instant = rng.exponential(1 / rate_hz)
    while instant < times[-1]:
        blink = np.maximum(blink, np.clip(1.6 - np.abs(times - instant) / 0.07, 0, 1))
        instant += 0.4 + rng.exponential(1 / rate_hz)
    return blink


def _draw_head(
    rng: np.random.Generator,
    kind: Emotion,
    strength: float,
    speech: Speech,
    face: np.ndarray,
    heard: float,
    frames: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Head turn (T, 3) and shift (T, 3): idle drift, beats on stressed syllables, and the pose of the expression."""
    step = CONTROL_HZ // FRAMES_PER_SECOND
    beat = speech.accent[::step] * speech.loudness[::step]
    sway = np.sin(2 * np.pi * rng.uniform(1.6, 2.6) * np.arange(frames) / FRAMES_PER_SECOND + rng.uniform(0, 6))
    lively = 0.8 + 0.25 * heard
    drift = _wander(rng, frames, 6, 1.1) * lively
    tremble = _wander(rng, frames, 2, 9.0) * kind.motion.get("tremble", 0.0) * strength
    cue = {name: face[:, k] for k, name in enumerate(FACE_CUES)}
    yaw = 0.11 * drift[:, 0] + rng.normal(0, 0.12) + 0.10 * kind.motion.get("shake", 0.0) * strength * sway
    pitch = 0.05 * drift[:, 1] + rng.normal(0, 0.06) - 0.16 * cue["pitch"]
    pitch = pitch + (0.05 + 0.15 * kind.motion.get("nod", 0.0) * strength) * beat + 0.012 * tremble[:, 0]
    roll = 0.035 * drift[:, 2] + rng.normal(0, 0.03) + 0.10 * cue["tilt"] * (1 if rng.random() < 0.5 else -1)
    right = 0.035 * drift[:, 3] + 0.15 * yaw + 0.014 * tremble[:, 1]
    down = 0.02 * drift[:, 4] + 0.25 * pitch
    size = 0.012 * drift[:, 5] + 0.06 * cue["lean"]
    return np.stack([yaw, pitch, roll], axis=1), np.stack([right, down, size], axis=1)


def _draw_voice(
    rng: np.random.Generator,
    voice: Voice,
    kind: Emotion,
    speech: Speech,
    excitement: np.ndarray,
    valence: float,
    own: np.ndarray,
    agreement: float,
) -> dict[str, np.ndarray]:
    """Curves (N,) of the voice, and ``cues``: ``VOICE_CUES`` at the apex without the tempo."""
    gain = voice.expressivity
    apex = excitement[int(np.argmax(np.abs(excitement - RESTING_AROUSAL)))]

    def level_semitones(a: np.ndarray | float) -> np.ndarray | float:
        return gain * (3.6 * a + (0.5 + agreement) * valence) + 0.9 * own[1]

    def range_semitones(a: np.ndarray | float) -> np.ndarray | float:
        return voice.pitch_range * 2.2 * 2 ** (gain * (0.9 * a + (0.12 + 0.8 * agreement) * valence) + 0.15 * own[2])

    def level_db(a: np.ndarray | float) -> np.ndarray | float:
        return voice.level_db + gain * 6.0 * a + 2.0 * own[3]

    def tilt(a: np.ndarray | float) -> np.ndarray | float:
        return voice.tilt_db_per_octave + gain * (2.4 * a + 1.6 * agreement * valence) + 0.6 * own[4]

    def breath(a: np.ndarray | float) -> np.ndarray | float:
        return np.clip(voice.breath * 2 ** (-0.9 * a * gain) + 0.02 * own[5], 0.01, 0.5)

    tremor = kind.tremor * rng.uniform(0.2, 1.0) + abs(0.15 * rng.normal())
    times = np.arange(len(excitement)) / CONTROL_HZ
    shake = tremor * np.sin(2 * np.pi * rng.uniform(5.5, 7.5) * times + rng.uniform(0, 6))
    # A final rise instead of a fall is heard as surprise or a question; it is rare and independent of the emotion.
    slope = 1.0 if rng.random() > 0.15 else -0.8
    intonation = range_semitones(excitement) * (0.9 * speech.accent + slope * (speech.declination - 0.5))
    semitones = level_semitones(excitement) + intonation + shake
    # Smiling shortens the vocal tract and raises the formants a little: the voice's weak cue of valence.
    formant_scale = voice.formant_scale * (1 + (0.02 + 0.04 * agreement) * valence + 0.012 * rng.normal())
    cues = np.array([
        np.log2(voice.pitch_hz) + level_semitones(apex) / 12, range_semitones(apex), level_db(apex), tilt(apex),
        breath(apex), tremor, formant_scale,
    ])  # fmt: skip
    return dict(
        pitch_hz=smooth(voice.pitch_hz * 2 ** (semitones / 12), 0.02),
        gain=10 ** (np.asarray(level_db(excitement)) / 20),
        tilt=np.asarray(tilt(excitement)),
        breath=np.asarray(breath(excitement)),
        cues=cues,
    )
