"""Pictures of models and runs: written by the command, with the content they claim, and clear words where not."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from hicmae.backbone import Backbone
from hicmae.checkpoint import read_pretraining, save_export
from hicmae.cli import main
from hicmae.data.manifest import read_manifest
from hicmae.data.shard_writer import write_shards
from hicmae.data.source import ClipInfo, ManifestSource
from hicmae.figures.attention import AttentionPicture, attention_pages, heated_frames, heated_spectrogram
from hicmae.figures.moving_picture import Sound, save_moving
from hicmae.figures.overlay import OverlaySettings, draw_overlay, moving_mean
from hicmae.report.clip_attention import attention_in
from hicmae.report.clip_features import features_of, untrained
from hicmae.report.feature_groups import group_by, neighbour_recall
from hicmae.report.feature_map import feature_maps
from hicmae.report.run_overlay import read_courses, run_names
from hicmae.report.shown_model import find_model
from tests.corpus import EMOTIONS, clip_bytes, make_corpus
from tests.run_directories import (
    CONFIG,
    SPEC,
    make_finetune_run,
    make_pretrain_run,
    training_lines,
    write_history,
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("figures") / "corpus", 12).path


@pytest.fixture(scope="module")
def pretrained(manifest) -> Path:
    folder = manifest.parent.parent
    write_shards(read_manifest(manifest), folder / "shards", shard_mb=0.1)
    return make_pretrain_run(folder / "pretrain", folder / "shards")


@pytest.fixture(scope="module")
def finetuned(manifest) -> Path:
    return make_finetune_run(manifest.parent.parent / "finetune", manifest, test=list(range(12)))


@pytest.fixture(scope="module")
def hearing(manifest) -> Path:
    """An export that takes sound alone."""
    torch.manual_seed(0)
    folder = manifest.parent.parent / "hearing"
    return save_export(folder, Backbone(CONFIG, modalities=["audio"]), spec=SPEC, provenance={"job": "pretrain"})


def figures(*arguments: object) -> int:
    return main(["figures", *map(str, arguments)])


def refused(capsys, *arguments: object) -> str:
    assert figures(*arguments) == 2
    return capsys.readouterr().err


# ---------------------------------------------------------------- files that play


def pages(count: int = 5) -> list[Image.Image]:
    return [Image.new("RGB", (33, 22), (40 * n, 200 - 40 * n, 90)) for n in range(count)]


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_pictures_that_play_show_each_page_for_its_time(tmp_path, suffix):
    path = save_moving(pages(), tmp_path / f"new/a{suffix}", page_s=0.16)
    with Image.open(path) as image:
        assert image.n_frames == 5
        assert image.info["loop"] == 0
        for number in range(5):
            image.seek(number)
            image.load()
            assert image.info["duration"] == 160
            colour = np.asarray(image.convert("RGB"))[11, 16].astype(int)
            assert np.abs(colour - (40 * number, 200 - 40 * number, 90)).max() < 12
    assert path.read_bytes() == save_moving(pages(), tmp_path / f"b{suffix}", page_s=0.16).read_bytes()


def test_an_mp4_has_the_pages_and_the_sound(tmp_path):
    tone = (8000 * np.sin(np.arange(16_000) * 0.2)).astype(np.int16)
    sound = Sound(waveform=tone, rate_hz=16_000)
    path = save_moving(pages(), tmp_path / "a.mp4", page_s=0.04, sound=sound)
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
        assert [frame.time for frame in frames] == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])
        assert (frames[0].width, frames[0].height) == (34, 22)  # made even
        colour = frames[3].to_ndarray(format="rgb24")[11, 16].astype(int)
        assert np.abs(colour - (120, 80, 90)).max() < 15
    with av.open(str(path)) as file:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
        assert file.streams.audio[0].rate == 16_000
    assert 0.2 <= len(heard) / 16_000 < 0.4  # as long as the pictures, up to the codec's frames
    assert np.abs(heard).max() > 0.15
    assert path.read_bytes() == save_moving(pages(), tmp_path / "b.mp4", page_s=0.04, sound=sound).read_bytes()
    with pytest.raises(ValueError, match=r"must end in \.gif, \.webp, \.mp4"):
        save_moving(pages(), tmp_path / "a.avi", page_s=0.04)


# ---------------------------------------------------------------- reconstructions


def test_a_reconstruction_plays_at_the_clips_pace(pretrained, tmp_path, capsys):
    out = tmp_path / "a.gif"
    assert figures("reconstruction", pretrained, "--clip", "clip004", "--size", "64", "-o", out) == 0
    assert "clip004, after 12 steps" in capsys.readouterr().out
    with Image.open(out) as image:
        assert (image.n_frames, image.info["duration"]) == (16, 160)
        assert image.width == 3 * 64 + 12


def test_a_reconstruction_as_mp4_is_heard(pretrained, tmp_path):
    out = tmp_path / "a.mp4"
    assert figures("reconstruction", pretrained, "--size", "64", "-o", out) == 0
    with av.open(str(out)) as file:
        assert len(list(file.decode(video=0))) == 64
        assert file.streams.video[0].average_rate == 25
        assert file.streams.audio


def test_several_clips_have_a_still_each(pretrained, tmp_path, monkeypatch):
    def draw(shown, path, *, clip, title):
        path.write_text(f"{title} of {len(shown.video)}, number {clip}")

    monkeypatch.setattr("hicmae.figures.reconstruction.draw_reconstruction", draw)
    assert figures("reconstruction", pretrained, "--clips", "2", "-o", tmp_path / "a.png") == 0
    drawn = {path.name: path.read_text() for path in sorted(tmp_path.iterdir())}
    assert list(drawn) == ["a_0.png", "a_1.png"]
    assert drawn["a_1.png"].endswith(", after 12 steps of 2, number 1")
    assert drawn["a_0.png"][:7] != drawn["a_1.png"][:7]


def test_the_mask_ratio_is_that_asked_for(pretrained, tmp_path):
    grey = {}
    for ratio in ("0.25", "0.75"):
        out = tmp_path / f"{ratio}.webp"
        assert figures("reconstruction", pretrained, "--mask-ratio", ratio, "--size", "64", "-o", out) == 0
        with Image.open(out) as image:
            masked = np.asarray(image.convert("RGB")).astype(int)[14:78, 70:134]
        grey[ratio] = (np.abs(masked - 128).max(axis=-1) < 12).mean()
    assert grey["0.25"] == pytest.approx(0.25, abs=0.1)
    assert grey["0.75"] == pytest.approx(0.75, abs=0.1)


def test_an_export_with_decoders_draws_what_its_checkpoint_does(pretrained, manifest, tmp_path):
    checkpoint = pretrained / "checkpoints" / "last.ckpt"
    model = read_pretraining(checkpoint)
    assert model is not None
    export = save_export(tmp_path / "e", model.backbone, spec=SPEC, provenance={}, decoder=model)
    drawn = []
    for place in (checkpoint, export):
        out = tmp_path / "a.webp"
        given = ("--data", manifest, "--clip", "clip001", "--mask-ratio", "0.5", "--size", "64")
        assert figures("reconstruction", place, *given, "-o", out) == 0
        drawn.append(out.read_bytes())
    assert drawn[0] == drawn[1]


def test_what_cannot_be_reconstructed_is_said(pretrained, finetuned, manifest, tmp_path, capsys):
    out = ("-o", tmp_path / "a.gif")
    said = refused(capsys, "reconstruction", pretrained / "export", *out)
    assert "holds no decoders" in said
    assert "--with-decoder" in said
    assert "run of fine-tuning, which leaves the decoders out" in refused(capsys, "reconstruction", finetuned, *out)
    said = refused(capsys, "reconstruction", pretrained, "--clip", "clip04", *out)
    assert "none of that name; did you mean clip004" in said
    assert "leaves 0 of" in refused(capsys, "reconstruction", pretrained, "--mask-ratio", "1", *out)
    assert "its splits are: test, train" in refused(capsys, "reconstruction", pretrained, "--split", "val", *out)
    said = refused(capsys, "reconstruction", pretrained, "-o", tmp_path / "a.avi")
    assert "must end in .gif or .webp or .mp4 or .png" in said
    assert "nothing at" in refused(capsys, "reconstruction", tmp_path / "absent", *out)
    bare = tmp_path / "moved.ckpt"
    bare.write_bytes((pretrained / "checkpoints" / "last.ckpt").read_bytes())
    assert "--data" in refused(capsys, "reconstruction", bare, *out)
    assert not (tmp_path / "a.gif").exists()


# ---------------------------------------------------------------- features


def test_features_are_drawn(finetuned, tmp_path, capsys):
    out = tmp_path / "a.png"
    assert figures("features", finetuned, "--by", "subject", "-o", out) == 0
    assert "12 of 12" in capsys.readouterr().out
    with Image.open(out) as image:
        assert image.width > 300


def test_one_modality_is_drawn_beside_random_weights(hearing, manifest, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "hicmae.figures.feature_grid.draw_feature_grid",
        lambda models, groups, names, path, **said: drawn.append((models, said)) or path.touch(),
    )
    given = ("--data", manifest, "--split", "train", "--untrained", "-o", tmp_path / "a.png")
    assert figures("features", hearing, *given) == 0
    (models, said), = drawn  # fmt: skip
    assert [model.name for model in models] == ["hearing", "untrained"]
    assert all(set(model.points) == {("audio", 1), ("audio", 2)} for model in models)
    assert said["title"].startswith("9 of 9 clips of split train; recall: by vote of the 5 nearest clips of other")
    assert said["chance"] == pytest.approx(1 / 3)


def test_maps_have_the_scores_of_the_features_themselves(finetuned, manifest):
    source = ManifestSource(manifest)
    loaded = find_model(finetuned).backbone()
    features = features_of(loaded, source, range(12), device="cpu")
    groups = group_by(features.infos, "emotion")
    maps = feature_maps("a", features, groups)
    assert set(maps.points) == {("video", 1), ("video", 2), ("audio", 1), ("audio", 2), ("fused", 0)}
    assert features.audio is not None
    recall = neighbour_recall(features.audio[1], groups)
    assert maps.recall["audio"][1] == recall
    assert f"recall {recall:.2f}" in maps.notes["audio", 2]


def test_an_untrained_model_is_the_same_every_time_and_moves_no_random_number(finetuned):
    loaded = find_model(finetuned).backbone()
    with torch.no_grad():
        loaded.backbone.video_encoder.embed.weight.add_(1)  # training
    before = torch.get_rng_state()
    first, second = (untrained(loaded).backbone.state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    own = loaded.backbone.state_dict()
    assert not torch.equal(first["video_encoder.embed.weight"], own["video_encoder.embed.weight"])


def infos(**labels: list) -> list[ClipInfo]:
    count = len(next(iter(labels.values())))
    return [
        ClipInfo(clip_id=str(i), subject=f"s{i % 3}", split="", labels={name: v[i] for name, v in labels.items()})
        for i in range(count)
    ]


def test_clips_are_grouped_by_words_numbers_or_speakers():
    clips = infos(emotion=[*EMOTIONS] * 4, valence=[n / 12 for n in range(12)], same=["x"] * 12)
    emotions = group_by(clips, "emotion")
    assert emotions.names == ["angry", "happy", "neutral"]
    assert emotions.subjects is not None  # neighbours are of other speakers
    assert group_by(clips, "valence").names == ["low", "middle", "high"]
    speakers = group_by(clips, "subject")
    assert speakers.names == ["s0", "s1", "s2"]
    assert speakers.subjects is None
    with pytest.raises(ValueError, match="did you mean 'emotion'"):
        group_by(clips, "emotions")
    with pytest.raises(ValueError, match="--by same makes no groups"):
        group_by(clips, "same")


# ---------------------------------------------------------------- attention


@pytest.fixture(scope="module")
def clip(manifest) -> Path:
    return manifest.parent / "clip000.mp4"


def test_attention_is_in_multiples_of_an_even_share(finetuned, clip):
    found = attention_in(find_model(finetuned).backbone(), clip)
    assert found.video is not None
    assert found.audio is not None
    assert found.video.shape == CONFIG.video_grid
    assert found.audio.shape == CONFIG.audio_grid
    assert found.video.mean() == pytest.approx(1, abs=1e-5)
    assert found.audio.mean() == pytest.approx(1, abs=1e-5)
    assert found.video_reads is not None
    assert found.video_reads.shape == (CONFIG.video_grid[0], CONFIG.audio_grid[0])
    np.testing.assert_allclose(found.video_reads.mean(axis=1), 1, atol=1e-5)
    one = attention_in(find_model(finetuned).backbone(), clip, layer=1)
    assert one.said == "attention received in layer 1"
    assert not np.array_equal(one.video, found.video)


def test_attention_plays_and_stands_still(finetuned, clip, tmp_path):
    for suffix in (".png", ".mp4"):
        assert figures("attention", finetuned / "export", clip, "--size", "48", "-o", tmp_path / f"a{suffix}") == 0
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert file.streams.audio
        assert len(list(file.decode(video=0))) == 64
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 1000


def test_a_model_or_a_file_without_picture_has_a_still(finetuned, hearing, clip, tmp_path, capsys):
    said = refused(capsys, "attention", hearing, clip, "-o", tmp_path / "a.gif")
    assert "takes sound alone" in said
    assert "a.png" in said
    assert figures("attention", hearing, clip, "-o", tmp_path / "a.png") == 0
    voice = tmp_path / "voice.wav"
    voice.write_bytes(clip_bytes(sound_only=True))
    assert figures("attention", finetuned, voice, "-o", tmp_path / "b.png") == 0
    assert "voice.wav has no picture" in refused(capsys, "attention", finetuned, voice, "-o", tmp_path / "b.gif")
    said = refused(capsys, "attention", finetuned, clip, "--layer", "2", "-o", tmp_path / "c.png")
    assert "layers 0 to 1" in said


@pytest.fixture
def grey_heat(monkeypatch):
    """Hotter is brighter."""
    monkeypatch.setattr("hicmae.figures.attention._HEAT", "gray")


@pytest.mark.usefixtures("grey_heat")
def test_heat_lies_where_it_is():
    frames = np.full((4, 16, 16, 3), 128, dtype=np.uint8)
    heat = np.ones((2, 4, 4))
    heat[1, 0, 3] = 3.0
    hot = heated_frames(frames, heat, side=32)[..., 0].astype(int)
    assert np.array_equal(hot[0], hot[1])
    for frame in (2, 3):  # of the second moment
        rows, columns = np.nonzero(hot[frame] == hot[frame].max())
        assert rows.mean() < 8
        assert columns.mean() >= 24
    assert hot[2].max() > hot[0].max()


@pytest.mark.usefixtures("grey_heat")
def test_heat_of_low_frequencies_lies_below():
    heat = np.ones((4, 4))
    heat[3, 0] = 3.0  # the last moment, the lowest band
    picture = heated_spectrogram(np.zeros((64, 32), dtype=np.float32), heat)
    assert picture.shape == (32, 64, 3)
    row, column = np.unravel_index(picture[..., 0].argmax(), (32, 64))
    assert row >= 24
    assert column >= 48


def test_the_line_of_time_moves_within_a_frame():
    rng = np.random.default_rng(0)
    shown = AttentionPicture(
        frames=rng.integers(0, 255, (2, 16, 16, 3)).astype(np.uint8), video=rng.random((2, 2, 2)),
        log_mel=rng.random((32, 16)), audio=rng.random((4, 2)), video_reads=None, audio_reads=None, seconds=0.32,
        title="a",
    )  # fmt: skip
    drawn = [np.asarray(page) for page in attention_pages(shown, side=48, pages_per_frame=2)]
    assert len(drawn) == 4
    assert all(not np.array_equal(one, two) for one, two in pairwise(drawn))
    top = np.s_[44:92, 56:104]  # the clip itself
    assert np.array_equal(drawn[0][top], drawn[1][top])
    assert not np.array_equal(drawn[1][top], drawn[2][top])


# ---------------------------------------------------------------- curves


@pytest.fixture
def two_runs(tmp_path) -> list[Path]:
    runs = [tmp_path / "a" / "fit", tmp_path / "b" / "fit"]
    write_history(runs[0], training_lines(6))
    write_history(runs[0], [{"step": n, "train/loss": 9.0, "epoch": n / 6} for n in (5, 6, 7)], version=1)
    write_history(runs[1], [*training_lines(4), {"step": 4, "val/uar": 0.5}])
    return runs


def test_a_resumed_run_is_one_curve_and_scores_find_their_epoch(two_runs):
    courses = read_courses(two_runs, ["a", "b"])
    assert list(courses) == ["train/loss", "val/uar"]
    assert courses["train/loss"]["a"] == ([1, 2, 3, 4, 5, 6, 7], pytest.approx([1.9, 1.8, 1.7, 1.6, 9, 9, 9]))
    assert courses["val/uar"] == {"b": ([4], [0.5])}
    places, values = read_courses(two_runs, ["a", "b"], ["val/*"], "epoch")["val/uar"]["b"]
    assert (places, values) == (pytest.approx([4 / 6]), [0.5])


def test_runs_are_called_by_what_tells_them_apart(two_runs):
    assert run_names(two_runs, []) == ["a/fit", "b/fit"]
    assert run_names(two_runs, ["x", "y"]) == ["x", "y"]
    for given, said in ((["x"], "1 names for 2 runs"), (["x", "x"], "must tell the runs apart")):
        with pytest.raises(ValueError, match=said):
            run_names(two_runs, given)
    with pytest.raises(ValueError, match="given twice"):
        run_names([two_runs[0], two_runs[0]], [])


def test_curves_are_drawn_and_what_is_missing_is_named(two_runs, tmp_path, capsys):
    out = tmp_path / "a.png"
    assert figures("curves", *two_runs, "--names", "one,two", "--smooth", "3", "--log", "-o", out) == 0
    assert "train/loss, val/uar of 2 runs" in capsys.readouterr().out
    with Image.open(out) as image:
        assert image.width > 400
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"{empty}: no logged lines" in refused(capsys, "curves", *two_runs, empty, "-o", out)
    assert "no folder" in refused(capsys, "curves", tmp_path / "absent", "-o", out)
    said = refused(capsys, "curves", *two_runs, "--metric", "train/los", "-o", out)
    assert "did you mean train/loss" in said
    assert "--smooth" in refused(capsys, "curves", *two_runs, "--smooth", "0", "-o", out)
    said = refused(capsys, "curves", *two_runs, "--metric", "skipped_clips", "--log", "-o", out)
    assert "no place on a logarithmic scale" in said


def test_a_run_of_one_value_is_seen_whether_smoothed_or_not(tmp_path):
    for smooth in (1, 7):
        path = draw_overlay(
            {"loss": {"a": ([1], [3.0])}}, tmp_path / "a.png", settings=OverlaySettings(smooth=smooth)
        )  # fmt: skip
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        panel = pixels[: int(0.85 * len(pixels))]  # the legend lies below
        blue = (panel[..., 2] - panel[..., 0] > 100).sum()
        assert blue > 10, smooth


def test_a_moving_mean_is_of_the_values_around():
    np.testing.assert_allclose(moving_mean([1, 2, 6, 1, 5], 3), [1.5, 3, 3, 4, 3])
    np.testing.assert_allclose(moving_mean([1, 2, 6], 1), [1, 2, 6])


def test_smoothing_is_written_into_the_picture(monkeypatch, tmp_path):
    titles = []
    from hicmae.figures import overlay

    monkeypatch.setattr(overlay, "save_figure", lambda figure, path: titles.append(figure.axes[0].get_title()) or path)
    draw_overlay({"loss": {"a": ([1, 2], [3, 4])}}, tmp_path / "a.png", settings=OverlaySettings(smooth=7))
    draw_overlay({"loss": {"a": ([1, 2], [3, 4])}}, tmp_path / "a.png")
    assert titles == ["loss (mean of 7)", "loss"]
