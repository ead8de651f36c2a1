"""ModelConfig and InputSpec: the paper's figures, what is refused, and the way to JSON and back."""

from __future__ import annotations

import json

import pytest

from hicmae.config import PRESETS, InputSpec, ModelConfig


def test_the_default_is_the_papers_base_model():
    config = ModelConfig()
    assert config == ModelConfig.preset("base")
    assert config.video_grid == (8, 10, 10)
    assert config.audio_grid == (16, 8)
    assert (config.video_tokens, config.audio_tokens) == (800, 128)
    assert (config.video_patch_values, config.audio_patch_values) == (1536, 256)
    assert (config.width, config.heads, config.depth, config.fusion_depth) == (512, 8, 10, 2)
    assert (config.decoder_width, config.decoder_heads, config.decoder_depth) == (384, 6, 4)
    assert config.taps == (3, 6, 9)


@pytest.mark.parametrize(
    ("name", "sizes"), [("tiny", (256, 4, 128, 2)), ("small", (384, 6, 192, 3)), ("base", (512, 8, 384, 6))]
)
def test_published_presets(name, sizes):
    config = ModelConfig.preset(name)
    assert (config.width, config.heads, config.decoder_width, config.decoder_heads) == sizes
    assert (config.depth, config.taps, config.video_tokens) == (10, (3, 6, 9), 800)


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_survives_json(name):
    config = ModelConfig.preset(name)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    spec = InputSpec.for_model(config)
    assert InputSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_a_preset_takes_overrides():
    config = ModelConfig.preset("small", image_size=96, taps=[4, 9], decoder_depth=3)
    assert (config.width, config.image_size, config.taps) == (384, 96, (4, 9))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            dict(image_size=150),
            r"image_size=150 is not divisible by patch_size=16; the nearest valid image_size is 144",
        ),
        (dict(image_size=4), r"the nearest valid image_size is 16"),
        (dict(num_frames=15), r"num_frames=15 is not divisible by tubelet_size=2"),
        (dict(audio_frames=250), r"audio_frames=250 .* nearest valid audio_frames is 256"),
        (dict(mel_bins=80, audio_patch_size=32), r"mel_bins=80 is not divisible by audio_patch_size=32"),
        (dict(width=100), r"width=100 is not divisible by heads=8"),
        (dict(decoder_width=100), r"decoder_width=100 is not divisible by decoder_heads=6"),
        (dict(depth=0), r"depth=0 must be at least 1"),
        (dict(patch_size=-16), r"patch_size=-16 must be at least 1"),
        (dict(fusion_depth=-1), r"fusion_depth=-1 must be 0 or more"),
        (dict(taps=(3, 6, 10)), r"taps=\(3, 6, 10\) must be ascending layer numbers within 0\.\.9"),
        (dict(taps=(-1, 6, 9)), r"within 0\.\.9"),
        (dict(taps=(6, 3, 9)), r"must be ascending"),
        (dict(taps=(3, 3, 9)), r"must be ascending"),
        (dict(depth=9), r"within 0\.\.8 \(depth=9\)"),
        (dict(taps=(3, 9)), r"set decoder_depth=3"),
        (dict(skip_connections=False, decoder_depth=0), r"decoder_depth=0 must be at least 1"),
        (dict(skip_connections="no"), r"skip_connections='no' must be true or false"),
        (dict(feature_fusion="mean"), r"feature_fusion='mean' must be one of layers, last"),
        (dict(fusion_direction="up"), r"fusion_direction='up' must be one of both, to_video, to_audio"),
        (dict(decoder_depth=5), r"decoder_depth=5 does not fit .* set decoder_depth=4, or skip_connections=false"),
    ],
)
def test_contradictions_are_refused_with_a_remedy(fields, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        dict(fusion_depth=0),
        dict(taps=(), decoder_depth=1),
        dict(depth=10, taps=(0, 1, 9)),
        dict(skip_connections=False, taps=(), decoder_depth=4),
        dict(skip_connections=False, decoder_depth=9),
    ],
)
def test_edges_that_are_valid(fields):
    ModelConfig(**fields)


def test_the_paper_has_all_of_its_parts():
    config = ModelConfig()
    assert (config.skip_connections, config.feature_fusion, config.fusion_direction) == (True, "layers", "both")
    assert config.switched == {}
    assert ModelConfig(fusion_direction="to_video").switched == {"fusion_direction": "to_video"}
    old = {name: value for name, value in config.to_dict().items() if name not in config.switches}
    assert ModelConfig.from_dict(old) == config  # as files say it that are older than the switches


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"unknown preset 'huge'; choose one of micro, mini, tiny, small, base, large"):
        ModelConfig.preset("huge")
    with pytest.raises(ValueError, match=r"unknown ModelConfig fields \['widht'\].*'width'"):
        ModelConfig.preset("base", widht=3)
    with pytest.raises(ValueError, match=r"unknown InputSpec fields \['fps'\]"):
        InputSpec.from_dict({"fps": 25})


def test_differences_name_the_fields():
    assert ModelConfig.preset("base").differences(ModelConfig.preset("small", taps=(1, 2, 3))) == {
        "width": (512, 384),
        "heads": (8, 6),
        "decoder_width": (384, 192),
        "decoder_heads": (6, 3),
        "taps": ([3, 6, 9], [1, 2, 3]),
    }
    assert ModelConfig().differences(ModelConfig()) == {}


def test_the_input_of_the_paper():
    spec = InputSpec()
    assert spec.audio_samples == 41_600
    assert spec.window_seconds == pytest.approx(2.56)
    assert spec == InputSpec.for_model(ModelConfig())


def test_the_input_follows_the_model():
    config = ModelConfig.preset("micro", num_frames=8, audio_frames=64, mel_bins=32)
    spec = InputSpec.for_model(config, frame_interval_s=0.12)
    assert (spec.image_size, spec.num_frames, spec.audio_frames, spec.mel_bins) == (64, 8, 64, 32)
    assert spec.window_seconds == pytest.approx(0.96)


@pytest.mark.parametrize("field", ["image_size", "num_frames", "frame_interval_s", "audio_seconds", "sample_rate_hz",
                                   "audio_frames", "mel_bins", "log_mel_std"])  # fmt: skip
def test_sizes_and_times_must_be_positive(field):
    with pytest.raises(ValueError, match=f"{field}=0 must be positive"):
        InputSpec().with_(**{field: 0})
