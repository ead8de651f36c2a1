"""Corruptions do what their levels say: measured on sound and pictures, not on the code."""

from __future__ import annotations

import io
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from hicmae.config import InputSpec
from hicmae.corruptions import CORRUPTIONS, Corruption, Media, corruption
from hicmae.corruptions.blur import blur_matrix
from hicmae.corruptions.desynchronisation import late_sound
from hicmae.corruptions.low_light import FULL_WELL, GAMMA, READ_NOISE
from hicmae.corruptions.reverberation import impulse_response
from hicmae.data.order import generator
from hicmae.media.clip import DecodeError
from hicmae.media.decode import decode_clip
from tests.media_files import make_clip

SIDE = 48
PADDED = 3000
"""Samples of padding behind the sound of ``media``."""


def media(*, loud: float = 3000.0, side: int = SIDE) -> Media:
    """A smooth moving picture, and a hum with pauses; two other voices."""
    rng = np.random.default_rng(0)
    y, x, t = np.mgrid[:side, :side, :8].transpose(0, 3, 1, 2).astype(np.float64)
    wave = 127 + 100 * np.sin(x / 5 + t / 2) * np.cos(y / 7)
    video = np.stack([wave, wave[:, ::-1], wave[:, :, ::-1]], axis=-1) + rng.uniform(-25, 25, (8, side, side, 3))
    time = np.arange(41_600) / 16_000
    sound = loud * np.sin(2 * np.pi * 220 * time) * (np.sin(2 * np.pi * 1.5 * time) > -0.3) + 40
    sound += loud * 0.2 * rng.standard_normal(len(time))
    sound[-PADDED:] = 0
    voices = [(rng.standard_normal(20_000) * scale).astype(np.int16) for scale in (50, 4000)]
    return Media(
        video=video.clip(0, 255).astype(np.uint8),
        waveform=np.rint(sound).astype(np.int16),
        sound_samples=41_600 - PADDED,
        voices=voices,
        sound_at=lambda late_s: (np.full(41_600, round(100 * late_s), dtype=np.int16), 41_000),
    )


def at(name: str, level: float, clip: Media | None = None, *, seed: int = 0) -> Media:
    return corruption(name)(clip or media(), level, generator("corruption", seed, name, "clip", 0))


def sounding(clip: Media) -> NDArray[np.float64]:
    return clip.waveform[: clip.sound_samples].astype(np.float64)


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize("kind", CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_clean_is_the_same_and_levels_repeat_exactly_and_grow(kind: Corruption) -> None:
    clean = media()
    before = clean.video.copy(), clean.waveform.copy()
    assert at(kind.name, kind.clean, clean) is clean
    damage = []
    for level in kind.levels if kind.name != "video_compression" else (30, 51):  # the one that takes time
        one, two = at(kind.name, level, clean), at(kind.name, level, clean)
        np.testing.assert_array_equal(one.video, two.video)
        np.testing.assert_array_equal(one.waveform, two.waveform)
        assert (one.video.dtype, one.video.shape) == (np.uint8, clean.video.shape)
        assert (one.waveform.dtype, one.waveform.shape) == (np.int16, clean.waveform.shape)
        if kind.modalities == ("video",):
            assert one.waveform is clean.waveform
            damage.append(np.abs(one.video.astype(float) - clean.video).mean())
        else:
            assert one.video is clean.video
            damage.append(np.abs(sounding(one) - clean.waveform[: one.sound_samples]).mean())
        if kind.modalities == ("audio",):
            assert not one.waveform[-PADDED:].any()  # padding stays padding
    assert min(damage) > 0
    if kind.clean in (kind.low, kind.high, 0.0, math.inf) and kind.name != "desynchronisation":
        assert all(more > 0.95 * less for less, more in itertools.pairwise(damage)), damage
        assert damage[-1] > 1.2 * damage[0]
    np.testing.assert_array_equal(before[0], clean.video)
    np.testing.assert_array_equal(before[1], clean.waveform)


@pytest.mark.parametrize("name", ["noise", "pink", "babble", "reverberation", "low_light", "occlusion", "frame_drops"])
def test_draws_are_the_seeds(name: str) -> None:
    level = corruption(name).levels[1]
    one, other = at(name, level), at(name, level, seed=1)
    assert (one.video != other.video).any() or (one.waveform != other.waveform).any()


def test_levels_out_of_range_and_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'blur'.*Known: noise, pink"):
        corruption("blurr")
    with pytest.raises(ValueError, match=r"noise has levels from -40 to 100 dB SNR \(clean: inf\), not 400"):
        at("noise", 400)
    with pytest.raises(ValueError, match=r"occlusion has levels from 0.01 to 1 of the area"):
        at("occlusion", 1.2)
    with pytest.raises(ValueError, match=r"mu_law has whole levels \(bits\), not 4.5"):
        at("mu_law", 4.5)


def test_an_axis_goes_from_clean_to_severe() -> None:
    assert corruption("noise").ordered([0, 20, -5]) == [math.inf, 20, 0, -5]
    assert corruption("mu_law").ordered([2, 8]) == [16, 8, 2]
    assert corruption("blur").ordered([4, 0, 1]) == [0, 1, 4]
    assert corruption("desynchronisation").ordered([0.5, -0.5]) == [-0.5, 0, 0.5]


# ---------------------------------------------------------------- sound


@pytest.mark.parametrize("name", ["noise", "pink", "babble"])
@pytest.mark.parametrize("loud", [300.0, 20_000.0])
def test_the_ratio_of_signal_to_noise_is_the_level(name: str, loud: float) -> None:
    clip = media(loud=loud)
    clean = sounding(clip)
    for level in (20.0, 5.0, -5.0):
        noisy = sounding(at(name, level, clip))
        # What was turned down to fit into 16 bits is the clean sound times a factor, and noise beside it.
        noise_of = {}
        for seed in (0, 1):
            noise_of[seed] = sounding(at(name, level, clip, seed=seed))
        gain = 1.0
        if np.abs(noisy).max() >= 32766:
            quiet = at(name, level, replace(clip, waveform=(clip.waveform / 16).astype(np.int16)))
            gain = noisy.std() / sounding(quiet).std() / 16
        noise = noisy - gain * clean
        measured = 10 * np.log10((gain * clean).var() / noise.var())
        assert measured == pytest.approx(level, abs=0.1)
        assert np.abs(noisy).max() <= 32767


def test_noise_is_the_same_at_all_levels_but_for_its_loudness() -> None:
    clip = media(loud=500.0)
    clean = sounding(clip)
    first, second = (sounding(at("noise", level, clip)) - clean for level in (10, 0))
    assert np.corrcoef(first, second)[0, 1] > 0.9999
    assert second.std() / first.std() == pytest.approx(10**0.5, rel=1e-3)


def test_white_noise_is_flat_and_pink_falls_by_three_decibels_an_octave() -> None:
    clip = media(loud=3000.0)
    for name, expected in (("noise", 0.0), ("pink", -3.01)):
        noise = sounding(at(name, 0, clip)) - sounding(clip)
        power = np.abs(np.fft.rfft(noise)) ** 2
        frequency = np.fft.rfftfreq(len(noise), 1 / 16_000)
        octaves = [power[(frequency >= f) & (frequency < 2 * f)].mean() for f in (125, 250, 500, 1000, 2000, 4000)]
        slope = np.polyfit(range(6), 10 * np.log10(octaves), 1)[0]
        assert slope == pytest.approx(expected, abs=0.3), name


def test_silence_and_no_sound_stay() -> None:
    silent = replace(media(), waveform=np.zeros(41_600, dtype=np.int16))
    for kind in CORRUPTIONS.values():
        if kind.modalities == ("audio",) and kind.name != "mu_law":  # whose steps have none at zero
            assert not at(kind.name, kind.levels[-1], silent).waveform.any(), kind.name
        if kind.modalities == ("audio",):
            none = replace(silent, sound_samples=0)
            np.testing.assert_array_equal(at(kind.name, kind.levels[-1], none).waveform, none.waveform)
    with pytest.raises(ValueError, match="none was given"):
        at("babble", 0, replace(media(), voices=()))


def test_babble_is_made_of_the_voices() -> None:
    tones = [(1000 * np.sin(2 * np.pi * f * np.arange(16_000) / 16_000)).astype(np.int16) for f in (1000, 3000)]
    tones[1] //= 100  # each counts the same, however loud it is
    clip = replace(media(loud=1000.0), voices=tones)
    noise = sounding(at("babble", 0, clip)) - sounding(clip)
    power = np.abs(np.fft.rfft(noise)) ** 2
    frequency = np.fft.rfftfreq(len(noise), 1 / 16_000)
    parts = [power[np.abs(frequency - f) < 50].sum() / power.sum() for f in (1000, 3000)]
    assert parts == pytest.approx([0.5, 0.5], abs=0.05)


@pytest.mark.parametrize("rt60_s", [0.25, 0.5, 1.0, 2.0])
def test_reverberation_decays_as_long_as_it_says(rt60_s: float) -> None:
    response = impulse_response(rt60_s, np.random.default_rng(3), rate_hz=16_000)
    assert response[0] == 1  # the direct sound
    left = np.cumsum(response[::-1] ** 2)[::-1]  # Schroeder, 1965
    decibels = 10 * np.log10(left / left[0])
    part = (decibels <= -5) & (decibels >= -35)
    slope = np.polyfit(np.arange(len(response))[part] / 16_000, decibels[part], 1)[0]
    assert -60 / slope == pytest.approx(rt60_s, rel=0.1)
    # Sabine: a critical distance of 0.057 sqrt(V / RT60) metres, in 100 cubic metres
    assert np.sum(response[1:] ** 2) == pytest.approx(1 / (0.057 * math.sqrt(100 / rt60_s)) ** 2)


def test_reverberation_rings_on_after_a_click_and_keeps_the_loudness() -> None:
    click = np.zeros(41_600, dtype=np.int16)
    click[1000] = 20_000
    clip = replace(media(), waveform=click, sound_samples=41_600)
    heard = at("reverberation", 0.5, clip)
    assert np.abs(heard.waveform).argmax() == 1000
    assert not heard.waveform[:1000].any()
    assert np.abs(heard.waveform[1001:9000]).max() > 100
    loud = media()
    assert sounding(at("reverberation", 1.0, loud)).std() == pytest.approx(sounding(loud).std(), rel=0.02)


def test_a_band_ends_at_its_limit() -> None:
    clip = media()
    cut = sounding(at("band_limit", 1000, clip))
    power, whole = (np.abs(np.fft.rfft(sound)) ** 2 for sound in (cut, sounding(clip)))
    frequency = np.fft.rfftfreq(len(cut), 1 / 16_000)
    assert power[frequency > 1010].sum() < 1e-5 * whole[frequency > 1010].sum()
    assert power[frequency < 990].sum() == pytest.approx(whole[frequency < 990].sum(), rel=1e-3)


def test_bits_of_the_mu_law_are_so_many_steps() -> None:
    ramp = np.linspace(-32_768, 32_767, 41_600).astype(np.int16)
    clip = replace(media(), waveform=ramp, sound_samples=41_600)
    for bits in (2, 4, 8):
        assert len(np.unique(at("mu_law", bits, clip).waveform)) == 2**bits
    # Eight bits are about as good for quiet sounds as for loud ones: some 38 dB.
    for loud in (1000.0, 16_000.0):
        quiet = media(loud=loud)
        error = sounding(at("mu_law", 8, quiet)) - sounding(quiet)
        assert 34 < 10 * np.log10(sounding(quiet).var() / error.var()) < 42


# ---------------------------------------------------------------- picture


def test_blur_has_the_spread_of_its_level_scaled_with_the_frame() -> None:
    for side, level in ((160, 4.0), (80, 4.0), (80, 8.0)):
        video = np.zeros((1, side, side, 3), dtype=np.uint8)
        video[0, side // 2, side // 2 - 8 : side // 2 + 8] = 255
        video[0, side // 2 - 8 : side // 2 + 8, side // 2] = 255
        blurred = at("blur", level, replace(media(), video=video)).video[0, ..., 0].astype(float)
        assert blurred.sum() == pytest.approx(video[0, ..., 0].sum(), rel=0.1)
        sigma = level * side / 160
        row = blur_matrix(side, sigma)[side // 2]
        spread = math.sqrt(np.sum(row * (np.arange(side) - side // 2) ** 2))
        assert spread == pytest.approx(sigma, rel=0.02)
    flat = np.full((2, SIDE, SIDE, 3), 77, dtype=np.uint8)
    np.testing.assert_array_equal(at("blur", 16, replace(media(), video=flat)).video, flat)  # edges are not darkened


def test_low_light_has_the_mean_and_the_noise_of_so_many_photons() -> None:
    value = 200
    flat = replace(media(), video=np.full((8, SIDE, SIDE, 3), value, dtype=np.uint8))
    dark = at("low_light", 2, flat).video / 255.0
    electrons = FULL_WELL * dark**GAMMA
    expected = FULL_WELL * (value / 255) ** GAMMA / 4
    assert electrons.mean() == pytest.approx(expected, rel=0.01)
    assert electrons.std() == pytest.approx(math.sqrt(expected + READ_NOISE**2), rel=0.05)
    assert not (dark[0] == dark[1]).all()


@pytest.mark.parametrize("side", [32, 48, 160])
@pytest.mark.parametrize("name", ["occlusion", "occlusion_eyes", "occlusion_mouth"])
def test_the_share_that_is_covered_is_the_level(name: str, side: int) -> None:
    video = np.zeros((4, side, side, 3), dtype=np.uint8)
    covered = np.zeros((side, side), dtype=bool)
    for level in corruption(name).levels:
        result = at(name, level, replace(media(), video=video)).video
        now = (result != 0).all(axis=3)
        assert (now == now[0]).all()  # in every frame at the same place
        assert now[0].mean() == pytest.approx(level, abs=0.5 / side + 1e-9)
        assert (now[0] | ~covered).all(), "a larger box covers what a smaller one does"
        covered = now[0]
        rows = np.flatnonzero(now[0].any(axis=1))
        if name != "occlusion":
            assert now[0][rows].all()
            middle = 0.42 if name == "occlusion_eyes" else 0.70
            assert rows.mean() / side == pytest.approx(middle, abs=1.2 / side)


def test_frames_that_are_lost_show_the_last_that_came() -> None:
    video = np.arange(11, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), dtype=np.uint8)
    clip, lost_before = replace(media(), video=video), set[int]()
    for level, count in ((0.2, 2), (0.4, 4), (1.0, 10)):
        shown = at("frame_drops", level, clip).video[:, 0, 0, 0].tolist()
        lost = {number for number in range(11) if shown[number] != number}
        assert len(lost) == count
        assert 0 not in lost
        assert lost_before <= lost
        assert all(shown[number] == shown[number - 1] for number in lost)
        lost_before = lost


@pytest.mark.parametrize("side", [48, 33])
def test_compression_loses_more_at_higher_factors(side: int) -> None:
    clip = media(side=side)
    errors = [np.abs(at("video_compression", crf, clip).video.astype(int) - clip.video).mean() for crf in (10, 30, 51)]
    assert errors == sorted(errors)
    assert errors[2] > errors[0] + 3


# ---------------------------------------------------------------- desynchronisation

SPEC = InputSpec(image_size=16, num_frames=4, frame_interval_s=0.1, audio_seconds=0.5, audio_frames=48)


def test_sound_comes_late_by_exactly_so_many_samples() -> None:
    wave = np.arange(1, 32_001, dtype=np.int16)  # each sample says where it is
    video, sound = clip_bytes(), wav(wave)
    window = decode_clip(video, sound, spec=SPEC, position=0.5, name="c")
    first = int(window.waveform[0])
    for late_s in (0.0, 0.25, -0.25, 0.0625, -0.4):
        waveform, reach = late_sound(video, sound, spec=SPEC, position=0.5, late_s=late_s, name="c")
        assert reach == 8000
        np.testing.assert_array_equal(waveform, np.arange(8000) + first - round(late_s * 16_000))


def test_beyond_the_clip_there_is_silence() -> None:
    wave = np.full(32_000, 7, dtype=np.int16)
    video, sound = clip_bytes(), wav(wave)
    late, reach = late_sound(video, sound, spec=SPEC, position=0.0, late_s=0.25, name="c")
    assert reach == 8000
    assert not late[:4000].any()
    assert (late[4000:] == 7).all()
    # Within a span, the file's sound before it belongs to another clip, and so does that behind it.
    options = {"spec": SPEC, "span_s": (0.5, 1.2), "name": "c"}
    late, reach = late_sound(video, sound, position=0.0, late_s=0.25, **options)  # type: ignore[arg-type]
    start_s = decode_clip(video, sound, position=0.0, **options).start_s  # type: ignore[arg-type]
    silent = round((0.5 - start_s + 0.25) * 16_000)
    assert not late[:silent].any()
    assert (late[silent:reach] == 7).all()
    early, reach = late_sound(video, sound, position=1.0, late_s=-0.25, **options)  # type: ignore[arg-type]
    start_s = decode_clip(video, sound, position=1.0, **options).start_s  # type: ignore[arg-type]
    assert reach == round((1.2 - start_s - 0.25) * 16_000)
    assert (early[:reach] == 7).all()
    assert not early[reach:].any()
    assert late_sound(video, sound, position=0.0, late_s=5.0, **options)[1] == 0  # type: ignore[arg-type]
    with pytest.raises(DecodeError):
        late_sound(b"nothing" * 9, None, spec=SPEC, position=0.0, late_s=0.1, name="c")


def clip_bytes() -> bytes:
    return make_clip(io.BytesIO(), seconds=2.0, size=(16, 16), rate=16_000)


def wav(samples: NDArray[np.int16]) -> bytes:
    import wave

    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(samples.tobytes())
    return file.getvalue()


def test_desynchronisation_asks_for_the_late_sound() -> None:
    late = at("desynchronisation", 0.5)
    assert late.sound_samples == 41_000
    assert (late.waveform == 50).all()
    with pytest.raises(ValueError, match="sound_at"):
        at("desynchronisation", 0.5, replace(media(), sound_at=None))
