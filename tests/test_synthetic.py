"""The synthetic corpus: repeatable, whole after a stop, and with cues that lie where the documentation says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from hicmae.cli import main
from hicmae.data.manifest import read_manifest
from hicmae.data.synthetic import CorpusSettings, plan_clips, render_clip, write_corpus
from hicmae.data.synthetic import corpus as corpus_module
from hicmae.data.synthetic.corpus import draw_clip, write_mp4
from hicmae.data.synthetic.emotions import EMOTIONS, FACE_CUES
from hicmae.data.synthetic.face import placements, render_frames
from hicmae.data.synthetic.performance import draw_performance
from hicmae.data.synthetic.speaker import draw_speaker
from hicmae.data.synthetic.speech import CONTROL_HZ
from hicmae.data.synthetic.voice import SAMPLE_RATE_HZ, synthesise
from hicmae.data.synthetic.warp import compose

SMALL = CorpusSettings(
    speakers=2,
    val_speakers=0,
    test_speakers=1,
    clips_per_speaker=2,
    unlabelled_speakers=1,
    unlabelled_clips_per_speaker=2,
    size=48,
    min_seconds=0.6,
    max_seconds=0.8,
)


def _decode(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 (T, H, W, 3) and sound float (samples,) of a file."""
    with av.open(str(path)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    with av.open(str(path)) as container:
        sound = np.concatenate([block.to_ndarray()[0] for block in container.decode(audio=0)])
    return frames, sound


# ---------------------------------------------------------------------------------------------------- the plan


def test_plan_balances_emotions_and_keeps_speakers_apart() -> None:
    plans = plan_clips(CorpusSettings())
    assert len({plan.clip_id for plan in plans}) == len(plans) == 24 * 16 + 24 * 16
    speakers = {split: {p.speaker_id for p in plans if p.split == split} for split in ("train", "val", "test")}
    assert [len(speakers[split]) for split in ("train", "val", "test")] == [12, 4, 8]
    unlabelled = {p.speaker_id for p in plans if p.split == "unlabelled"}
    assert len(unlabelled | speakers["train"] | speakers["val"] | speakers["test"]) == 48
    for speaker in speakers["test"]:
        kinds = [p.emotion for p in plans if p.speaker_id == speaker]
        assert sorted(kinds) == sorted([*EMOTIONS, *EMOTIONS])


def test_emotions_form_a_grid_of_valence_and_arousal() -> None:
    for emotion in EMOTIONS.values():
        partner = EMOTIONS[emotion.partner]
        assert EMOTIONS[partner.partner] is emotion
        assert partner.valence == emotion.valence
        assert abs(partner.arousal - emotion.arousal) > 1
        same_row = [other for other in EMOTIONS.values() if other.arousal * emotion.arousal > 0]
        assert len({other.valence for other in same_row}) == len(same_row) == 4


# ------------------------------------------------------------------------------------------------ repeatability


def test_a_clip_depends_on_seed_and_name_alone() -> None:
    plan = plan_clips(SMALL)[1]
    frames, sound = render_clip(plan, SMALL)
    again, sound_again = render_clip(plan, replace(SMALL, speakers=9, clips_per_speaker=5))
    assert np.array_equal(frames, again)
    assert np.array_equal(sound, sound_again)
    other, _ = render_clip(plan, replace(SMALL, seed=1))
    assert frames.shape != other.shape or not np.array_equal(frames, other)
    assert draw_speaker(0, "a") == draw_speaker(0, "a") != draw_speaker(0, "b")


def test_number_of_processes_does_not_matter(tmp_path: Path) -> None:
    one = write_corpus(tmp_path / "one", SMALL, workers=1)
    two = write_corpus(tmp_path / "two", SMALL, workers=2)
    assert one.read_text() == two.read_text()
    names = sorted(path.name for path in (tmp_path / "one" / "clips").iterdir())
    assert len(names) == 6
    for name in names:
        assert (tmp_path / "one" / "clips" / name).read_bytes() == (tmp_path / "two" / "clips" / name).read_bytes()


# ------------------------------------------------------------------------------------------------------ the files


def test_files_are_h264_and_aac_of_equal_start_and_length(tmp_path: Path) -> None:
    settings = replace(SMALL, size=64, min_seconds=1.2, max_seconds=1.2)
    pixels, sound = render_clip(plan_clips(settings)[0], settings)
    write_mp4(tmp_path / "clip.mp4", pixels, sound)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.pix_fmt, video.average_rate) == ("h264", "yuv420p", 25)
        assert (video.width, video.height, video.frames) == (64, 64, 30)
        assert (audio.codec_context.name, audio.rate, audio.channels) == ("aac", SAMPLE_RATE_HZ, 1)
        assert (video.start_time, audio.start_time) == (0, 0)
    frames, heard = _decode(tmp_path / "clip.mp4")
    assert np.abs(frames.astype(float) - pixels).mean() < 5
    # The encoder's delay is hidden by the container: sound comes back at its place.
    spoken = sound / 32_768
    overlap = [np.dot(heard[max(0, lag) : len(sound) + min(0, lag)], spoken[max(0, -lag) : len(sound) - max(0, lag)])
               for lag in range(-40, 41)]  # fmt: skip
    assert int(np.argmax(overlap)) - 40 == 0


def test_manifest_hides_labels_of_the_unlabelled(tmp_path: Path) -> None:
    manifest = read_manifest(write_corpus(tmp_path / "corpus", SMALL))
    assert len(manifest.clips) == 6
    for clip in manifest.clips:
        assert clip.video is not None
        assert clip.video.is_file()
        if clip.split == "unlabelled":
            assert not clip.labels
        else:
            assert clip.labels["emotion"] in EMOTIONS
            assert -1 <= float(clip.labels["valence"]) <= 1
            assert -1 <= float(clip.labels["arousal"]) <= 1


def test_continues_where_it_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    manifest = write_corpus(folder, SMALL)
    clips = sorted((folder / "clips").glob("*.mp4"))
    whole, stamps = clips[2].read_bytes(), [clip.stat().st_mtime_ns for clip in clips]
    clips[2].unlink()
    manifest.unlink()
    (folder / "clips" / "s0000-000.part").write_bytes(b"half a file")
    seen: list[tuple[int, int]] = []
    write_corpus(folder, SMALL, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(5, 6), (6, 6)]
    assert clips[2].read_bytes() == whole
    assert [clip.stat().st_mtime_ns for k, clip in enumerate(clips) if k != 2] == stamps[:2] + stamps[3:]
    assert manifest.is_file()
    assert not list(folder.rglob("*.part"))


class _BreaksHalfWay(np.ndarray):
    """Ten frames of which the sixth cannot be had."""

    def __iter__(self) -> Iterator[np.ndarray]:
        yield from np.zeros((5, 48, 48, 3), np.uint8)
        raise RuntimeError("power cut")


def test_a_clip_that_fails_leaves_no_file_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.zeros((10, 48, 48, 3), np.uint8).view(_BreaksHalfWay)
    monkeypatch.setattr(corpus_module, "render_clip", lambda plan, settings: (frames, np.zeros(6400, np.int16)))
    with pytest.raises(RuntimeError, match="power cut"):
        write_corpus(tmp_path / "corpus", SMALL)
    assert not list((tmp_path / "corpus").rglob("*.mp4"))
    assert not (tmp_path / "corpus" / "manifest.csv").exists()


# ---------------------------------------------------------------------------------------------------- bad settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(size=161), "size=161 must be even .* try size=162"),
        (dict(speakers=0, val_speakers=0, test_speakers=0), "speakers=0 makes an empty corpus"),
        (dict(clips_per_speaker=0), "clips_per_speaker=0"),
        (dict(unlabelled_speakers=-1), "unlabelled_speakers=-1 must be 0 or more"),
        (dict(speakers=12), "leave none of the speakers=12 for training; raise speakers to at least 13"),
        (dict(min_seconds=3.0, max_seconds=2.0), "min_seconds <= max_seconds"),
        (dict(agreement=1.5), r"agreement=1.5 must be within 0..1"),
        (dict(intensity=-1.0), r"intensity=-1.0 must be within 0..3"),
        (dict(framing=3.0), r"framing=3.0 must be within 0.5..1.6"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CorpusSettings(**change)  # type: ignore[arg-type]


def test_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus", SMALL)
    with pytest.raises(FileExistsError, match=r"seed: 0 there, 5 asked for.*choose another folder"):
        write_corpus(tmp_path / "corpus", replace(SMALL, seed=5))
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "photo.jpg").write_bytes(b"x")
    with pytest.raises(FileExistsError, match="holds no synthetic corpus"):
        write_corpus(tmp_path / "holiday", SMALL)
    assert [path.name for path in (tmp_path / "holiday").iterdir()] == ["photo.jpg"]
    (tmp_path / "corpus" / "corpus.json").write_text("{")
    with pytest.raises(ValueError, match=r"corpus\.json is not readable"):
        write_corpus(tmp_path / "corpus", SMALL)
    with pytest.raises(ValueError, match="workers=0"):
        write_corpus(tmp_path / "new", SMALL, workers=0)
    with pytest.raises(ValueError, match="unknown emotion 'bored'"):
        draw_performance(draw_speaker(0, "a"), "bored", seed=0, clip_id="x", seconds=(1, 1))


# --------------------------------------------------------------------------------------------------- what it shows


def test_lips_move_with_the_sound_in_the_encoded_file(tmp_path: Path) -> None:
    """Mouth opening read from decoded pixels (dark share round the mouth) against the decoded sound's envelope."""
    settings = CorpusSettings(min_seconds=3.0, max_seconds=3.0)
    correlations = []
    for plan in plan_clips(settings)[:: 16 * 3][:8]:
        parts = draw_clip(plan, settings)
        look, performance = parts.speaker.look, parts.performance
        write_mp4(tmp_path / "clip.mp4", *render_clip(plan, settings))
        frames, sound = _decode(tmp_path / "clip.mp4")
        grey = frames.mean(axis=3)
        opening = []
        for picture, place, yaw, pitch in zip(
            grey, placements(parts.scene, performance, size=160), *performance.turn.T[:2], strict=True
        ):
            x, y = 0.16 * yaw, look.mouth_height + 0.13 * pitch
            (left, top), (right, bottom) = place @ (x - 0.14, y - 0.08, 1), place @ (x + 0.14, y + 0.26, 1)
            box = picture[int(top) : int(bottom) + 1, int(left) : int(right) + 1]
            skin = np.median(picture[int(top) - 12 : int(top) - 2, int(left) : int(right)])
            opening.append((box < 0.35 * skin).mean())
        envelope = np.sqrt((sound[: len(frames) * 640].reshape(len(frames), 640) ** 2).mean(axis=1))
        correlations.append(np.corrcoef(opening, envelope)[0, 1])
    assert np.mean(correlations) > 0.6
    assert min(correlations) > 0.3


def test_neither_modality_alone_is_enough() -> None:
    """Linear classifiers on the true parameters, unseen speakers: both together do well, each alone does not."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.metrics import recall_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    settings = CorpusSettings(speakers=60, val_speakers=0, test_speakers=20, clips_per_speaker=8)
    plans = [plan for plan in plan_clips(settings) if plan.split != "unlabelled"]
    performances = [draw_clip(plan, settings).performance for plan in plans]
    face = np.array([performance.face_cues for performance in performances])
    voice = np.array([performance.voice_cues for performance in performances])
    kind = np.array([plan.emotion for plan in plans])
    train = np.array([plan.split == "train" for plan in plans])

    def recall(features: np.ndarray) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(features[train], kind[train])
        return float(recall_score(kind[~train], model.predict(features[~train]), average="macro"))

    def correlation(features: np.ndarray, target: np.ndarray) -> float:
        model = make_pipeline(StandardScaler(), Ridge()).fit(features[train], target[train])
        return float(np.corrcoef(model.predict(features[~train]), target[~train])[0, 1])

    both, face_alone, voice_alone = recall(np.hstack([face, voice])), recall(face), recall(voice)
    assert 0.75 < both < 0.95
    assert 1 / 8 < face_alone < both - 0.2
    assert 1 / 8 < voice_alone < both - 0.3
    valence = np.array([performance.valence for performance in performances])
    arousal = np.array([performance.arousal for performance in performances])
    assert correlation(face, valence) > 0.75 > 0.5 > correlation(face, arousal)
    assert correlation(voice, arousal) > 0.75 > 0.5 > correlation(voice, valence)


def test_the_emotion_unfolds_in_time() -> None:
    performance = draw_performance(draw_speaker(0, "a"), "happy", seed=0, clip_id="x", seconds=(3.0, 3.0))
    rest = np.asarray(draw_speaker(0, "a").look.rest)
    strength = np.linalg.norm(performance.face - rest, axis=1)
    assert strength[0] < 0.35 * strength.max()
    assert np.allclose(performance.face[int(np.argmax(strength))], performance.face_cues, atol=0.05)


def test_a_smile_lifts_the_mouth_corners() -> None:
    """Drawn with the same head, the smile's mouth differs from the frown's and nothing else on the face does."""
    settings = CorpusSettings()
    parts = draw_clip(plan_clips(settings)[0], settings)
    scene = replace(parts.scene, noise=0.0)
    smile = FACE_CUES.index("smile")
    frames = {}
    for value in (-1.0, 1.0):
        face = parts.performance.face.copy()
        face[:, smile] = value
        frames[value] = render_frames(parts.speaker.look, scene, replace(parts.performance, face=face), size=160)
    change = np.abs(frames[1.0].astype(float) - frames[-1.0]).mean(axis=(0, 3))
    place = placements(scene, parts.performance, size=160)[0]
    column, row = (int(value) for value in place @ (0, parts.speaker.look.mouth_height, 1))
    assert change[row - 12 : row + 12, column - 25 : column + 25].mean() > 5
    assert change[: row - 30].max() == 0


def test_the_voice_has_the_pitch_it_was_given() -> None:
    performance = draw_performance(draw_speaker(0, "a"), "angry", seed=0, clip_id="x", seconds=(3.0, 3.0))
    sound = synthesise(performance, seed=0, clip_id="x").astype(float)
    assert len(sound) == 3 * SAMPLE_RATE_HZ
    middles = np.flatnonzero(performance.speech.loudness > 0.7 * performance.speech.loudness.max())
    errors = []
    for point in middles[:: max(1, len(middles) // 20)]:
        centre = point * SAMPLE_RATE_HZ // CONTROL_HZ
        piece = sound[max(0, centre - 400) : centre + 400]
        spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece)), 4096)) ** 2
        similarity = np.fft.irfft(spectrum)
        lags = np.arange(40, 220)
        found = SAMPLE_RATE_HZ / lags[int(np.argmax(similarity[40:220]))]
        errors.append(abs(np.log2(found / performance.pitch_hz[point])))
    assert np.median(errors) < 0.08


def test_excitement_is_louder_and_higher() -> None:
    speaker, level, pitch = draw_speaker(0, "a"), {}, {}
    for emotion in ("angry", "sad"):
        performances = [
            draw_performance(speaker, emotion, seed=0, clip_id=f"{emotion}{k}", seconds=(3, 3)) for k in range(5)
        ]
        sounds = [synthesise(performance, seed=0, clip_id=f"{k}") for k, performance in enumerate(performances)]
        level[emotion] = np.mean([20 * np.log10(np.std(sound.astype(float))) for sound in sounds])
        pitch[emotion] = np.mean([performance.pitch_hz.mean() for performance in performances])
    assert level["angry"] > level["sad"] + 5
    assert pitch["angry"] > pitch["sad"] * 1.08


def test_noise_never_wraps_round() -> None:
    settings = replace(SMALL, size=64)
    for plan in plan_clips(settings):
        parts = draw_clip(plan, settings)
        noisy = render_frames(
            parts.speaker.look, replace(parts.scene, noise=12.0, exposure=1.6), parts.performance, size=64
        )
        clean = render_frames(
            parts.speaker.look, replace(parts.scene, noise=0.0, exposure=1.6), parts.performance, size=64
        )
        assert np.abs(noisy.astype(int) - clean).max() <= 12


def test_compose_places_a_layer_by_its_edges() -> None:
    background = np.full((6, 8, 3), 50, np.uint8)
    layer = np.zeros((4, 4, 4), np.uint8)
    layer[1:3, 1:3] = (200, 100, 40, 255)
    matrix = np.array([[1.0, 0, -3], [0, 1, -1]])  # the layer's origin is at column 3, row 1
    result = compose(layer[None], background, matrix[None], np.array([[3, 1, 7, 5]]))[0]
    expected = background.copy()
    expected[2:4, 4:6] = (200, 100, 40)
    assert np.array_equal(result, expected)
    layer[..., :3] = (200, 100, 40)
    matrix[0, 2] = -3.5  # half a pixel to the right: half covered at both sides
    result = compose(layer[None], background, matrix[None], np.array([[3, 1, 8, 5]]))[0]
    assert result[2, :, 0].tolist() == [50, 50, 50, 50, 125, 200, 125, 50]


# ---------------------------------------------------------------------------------------------------- command line


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--speakers", "1", "--val-speakers", "0", "--test-speakers", "0", "--clips-per-speaker", "2",
               "--unlabelled-speakers", "0", "--size", "48", "--seconds", "0.6", "0.6", "--workers", "1"]  # fmt: skip
    sheet = tmp_path / "figures" / "sheet.png"
    assert main(["demo-data", str(tmp_path / "out"), *options, "--contact-sheet", str(sheet)]) == 0
    assert "synthetic" in capsys.readouterr().out
    assert len(list((tmp_path / "out" / "clips").glob("*.mp4"))) == 2
    assert sheet.read_bytes().startswith(b"\x89PNG")
    assert main(["demo-data", str(tmp_path / "out"), *options, "--seed", "3"]) == 2
    assert "seed: 0 there, 3 asked for" in capsys.readouterr().err


def test_command_line_defaults_are_the_settings() -> None:
    import argparse

    from hicmae.cli.demo_data import add_arguments

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    values = vars(parser.parse_args(["out"]))
    seconds = dict(zip(("min_seconds", "max_seconds"), values.pop("seconds"), strict=True))
    for name in ("out", "workers", "contact_sheet"):
        values.pop(name)
    assert CorpusSettings(**values, **seconds) == CorpusSettings()


def test_a_corpus_below_the_working_folder_reads_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = CorpusSettings(
        speakers=3, val_speakers=1, test_speakers=1, clips_per_speaker=1, unlabelled_speakers=0, size=48,
        min_seconds=0.5, max_seconds=0.6,
    )  # fmt: skip
    manifest = read_manifest(write_corpus(Path("below/corpus"), settings))
    assert all(clip.video is not None and clip.video.is_file() for clip in manifest.clips)


def test_agreement_and_intensity_let_each_modality_tell_more() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    plain = CorpusSettings(speakers=60, val_speakers=0, test_speakers=20, clips_per_speaker=8, unlabelled_speakers=0)
    plans = plan_clips(plain)
    train = np.array([plan.split == "train" for plan in plans])
    kind = np.array([plan.emotion for plan in plans])

    def recalls(settings: CorpusSettings) -> list[float]:
        performances = [draw_clip(plan, settings).performance for plan in plans]
        parts = [np.array([getattr(p, name) for p in performances]) for name in ("face_cues", "voice_cues")]
        found = []
        for x in (*parts, np.hstack(parts)):
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x[train], kind[train])
            found.append(float(model.score(x[~train], kind[~train])))
        return found

    face, voice, both = recalls(plain)
    agreed = recalls(replace(plain, agreement=0.5, intensity=1.3))
    assert agreed[0] > face + 0.15
    assert agreed[1] > voice + 0.15
    assert agreed[2] >= max(*agreed[:2], both)
    # The same people in the same rooms.
    one, other = (draw_clip(plans[3], s) for s in (plain, replace(plain, agreement=0.5, intensity=1.3)))
    assert one.scene == other.scene
    assert one.speaker == other.speaker
    assert one.performance.frames == other.performance.frames


def test_framing_makes_the_head_larger_and_nothing_else() -> None:
    plans = plan_clips(SMALL)
    one, other = (draw_clip(plans[0], s) for s in (SMALL, replace(SMALL, framing=1.3)))
    assert other.scene.zoom == pytest.approx(1.3 * one.scene.zoom)
    assert replace(other.scene, zoom=one.scene.zoom) == one.scene
    assert np.array_equal(one.performance.face, other.performance.face)


def test_a_folder_made_before_the_newer_settings_is_gone_on_with(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path / "corpus", SMALL)
    marker = tmp_path / "corpus" / "corpus.json"
    older = {k: v for k, v in json.loads(marker.read_text()).items() if k not in ("agreement", "intensity", "framing")}
    marker.write_text(json.dumps(older))
    assert write_corpus(tmp_path / "corpus", SMALL) == manifest
    with pytest.raises(FileExistsError, match=r"agreement: 0.0 there, 0.5 asked for"):
        write_corpus(tmp_path / "corpus", replace(SMALL, agreement=0.5))
