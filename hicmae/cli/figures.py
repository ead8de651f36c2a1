"""``hicmae figures``: pictures of models and runs for people to look at."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

_NEEDED = {"matplotlib": "matplotlib", "sklearn": "scikit-learn", "pandas": "pandas", "yaml": "PyYAML", "PIL": "pillow",
           "markupsafe": "MarkupSafe"}  # fmt: skip
_MOVING = (".gif", ".webp", ".mp4")
_PAGES_PER_FRAME = 4  # of an mp4: the line of time moves without jerks
_FEWEST = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command: one set for each picture."""
    kinds = parser.add_subparsers(dest="what", metavar="WHAT", required=True)

    def kind(name: str, summary: str) -> argparse.ArgumentParser:
        return kinds.add_parser(
            name, help=summary, description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )

    one = kind("reconstruction", "original, masked and predicted clip, playing over its spectrograms")
    one.add_argument("model", type=Path, help="run of pre-training, its checkpoint, or an export --with-decoder")
    _add_data(one)
    which = one.add_mutually_exclusive_group()
    which.add_argument("--clips", type=int, default=1, metavar="N",
                       help="so many clips, spread evenly; of several, each has a file of its own")  # fmt: skip
    which.add_argument("--clip", metavar="ID", help="this clip")
    one.add_argument("--mask-ratio", type=float, nargs="+", metavar="R",
                     help="share masked: of both, or of video and of audio (default: as the run trained, else "
                     "0.9 0.8)")  # fmt: skip
    one.add_argument("--seed", type=int, default=0, help="of the masks")
    _add_out(one, "X.gif, X.webp or X.mp4, which play, mp4 with the clip's sound; or X.png, a filmstrip")
    _add_size(one, 160)

    two = kind("features", "t-SNE of features by layer and modality, with scores that say how far to trust it")
    two.add_argument("model", type=Path, help="run, exported folder or checkpoint, of pre-training or fine-tuning")
    _add_data(two)
    two.add_argument("--clips", type=int, default=300, metavar="N", help="so many clips at most")
    two.add_argument("--by", metavar="LABEL",
                     help="colour by it, or by subject (default: what the run learnt, or emotion)")  # fmt: skip
    two.add_argument("--untrained", action="store_true", help="beside it the same model with random weights")
    _add_out(two, "X.png")

    three = kind("attention", "where a model looks and listens in one file")
    three.add_argument("model", type=Path, help="exported folder, run or checkpoint")
    three.add_argument("media", type=Path, help="media file")
    three.add_argument("--layer", type=int, metavar="N",
                       help="attention received in this layer, from 0 (default: rollout through all)")  # fmt: skip
    three.add_argument("--position", type=float, default=0.5, help="which window of the file, 0 (first) to 1 (last)")
    three.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="where the model runs")
    _add_out(three, "X.gif, X.webp or X.mp4, which play, mp4 with sound; or X.png, a still")
    _add_size(three, 200)

    four = kind("curves", "learning curves of several runs, overlaid")
    four.add_argument("runs", type=Path, nargs="+", help="run directories")
    four.add_argument("--names", default="", metavar="A,B,...", help="what they are called (default: their folders)")
    four.add_argument("--metric", default="", metavar="M,M,...",
                      help="what to draw, such as train/loss or 'train/*' (default: loss and scores)")  # fmt: skip
    four.add_argument("--x", default="step", choices=["step", "epoch", "clips_seen"], help="what they run over")
    four.add_argument("--log", action="store_true", help="logarithmic values")
    four.add_argument("--smooth", type=int, default=1, metavar="N",
                      help="moving mean over N logged values, which the picture says; 1: none")  # fmt: skip
    four.add_argument("--title", default="", help="a line above")
    _add_out(four, "X.png")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", nargs="+", default=[], metavar="PLACE",
                        help="a manifest, or shard folders (default: the run's own)")  # fmt: skip
    parser.add_argument("--split", metavar="NAME", help="clips of this split alone")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="where the model runs")


def _add_out(parser: argparse.ArgumentParser, endings: str) -> None:
    parser.add_argument("-o", "--out", type=Path, required=True, help=f"file to write: {endings}")


def _add_size(parser: argparse.ArgumentParser, size: int) -> None:
    parser.add_argument("--size", type=int, default=size, metavar="PIXELS", help="side of a frame in what plays")


def run(args: argparse.Namespace) -> int:
    """Write the picture; returns 0."""
    if missing := [package for module, package in _NEEDED.items() if importlib.util.find_spec(module) is None]:
        raise ValueError(f"this needs {', '.join(missing)}; install them with: pip install 'hicmae[train]'")
    from hicmae.report.run import NotAvailableError

    endings = {"reconstruction": (*_MOVING, ".png"), "attention": (*_MOVING, ".png")}.get(args.what, (".png",))
    if args.out.suffix not in endings:
        raise ValueError(f"--out {args.out} must end in {' or '.join(endings)}")
    if getattr(args, "size", 48) < 48:
        raise ValueError(f"--size {args.size} is too small for a picture; give 48 or more")
    draw = {"reconstruction": _reconstruction, "features": _features, "attention": _attention, "curves": _curves}
    try:
        draw[args.what](args)
    except NotAvailableError as reason:
        raise ValueError(str(reason)) from reason
    return 0


def _wrote(*paths: Path, more: str = "") -> None:
    for path in paths:
        sys.stdout.write(f"{path}: {path.stat().st_size / 1e3:.0f} KB{more}\n")


def _device(wanted: str) -> str:
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch finds no CUDA device here; leave --device out")
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted


def _reconstruction(args: argparse.Namespace) -> None:
    from hicmae.figures.moving_picture import Sound, save_moving
    from hicmae.figures.reconstruction import draw_reconstruction
    from hicmae.figures.reconstruction_animation import AnimationSettings, reconstruction_pages
    from hicmae.report.masked_clips import ratios_of, reconstruct_clips, spread
    from hicmae.report.shown_model import find_clips, find_model

    if args.clips < 1:
        raise ValueError(f"--clips {args.clips} must be 1 or more")
    if args.mask_ratio is not None and len(args.mask_ratio) > 2:
        raise ValueError(f"--mask-ratio takes one number, or one for video and one for audio, not {args.mask_ratio}")
    shown = find_model(args.model)
    model, spec, steps = shown.pretraining()
    clips = find_clips(shown, data=args.data, split=args.split, limit=300, clip=args.clip)
    ratios = ratios_of(shown.run.data)
    if args.mask_ratio is not None:
        ratios = {"video_mask_ratio": args.mask_ratio[0], "audio_mask_ratio": args.mask_ratio[-1]}
    masked = reconstruct_clips(
        model, spec, clips.source, spread(clips.numbers, 4 * args.clips), most=args.clips, ratios=ratios,
        seed=args.seed, device=_device(args.device),
    )  # fmt: skip
    settings = AnimationSettings(
        panel=args.size, frame_s=spec.frame_interval_s, pages_per_frame=_pages_per_frame(args.out), quality=80
    )
    after = f", after {steps} steps" if steps is not None else ""
    for place, (info, clip) in enumerate(zip(masked.infos, masked.decoded, strict=True)):
        path = args.out if len(masked.infos) == 1 else args.out.with_stem(f"{args.out.stem}_{place}")
        if path.suffix == ".png":
            draw_reconstruction(masked.shown, path, clip=place, title=f"{info.clip_id}{after}")
        else:
            sound = Sound(waveform=clip.waveform, rate_hz=spec.sample_rate_hz)
            pages = reconstruction_pages(masked.shown, clip=place, settings=settings)
            save_moving(pages, path, page_s=settings.page_s, sound=sound, quality=settings.quality)
        _wrote(path, more=f", {info.clip_id}{after}")


def _pages_per_frame(out: Path) -> int:
    return _PAGES_PER_FRAME if out.suffix == ".mp4" else 1


def _features(args: argparse.Namespace) -> None:
    import numpy as np

    from hicmae.figures.feature_grid import draw_feature_grid
    from hicmae.report.clip_features import features_of, untrained
    from hicmae.report.feature_groups import NEIGHBOURS, group_by, group_clips
    from hicmae.report.feature_map import feature_maps
    from hicmae.report.shown_model import find_clips, find_model

    shown, device = find_model(args.model), _device(args.device)
    loaded = shown.backbone()
    clips = find_clips(shown, data=args.data, split=args.split, limit=args.clips)
    models = {shown.name: loaded} | ({"untrained": untrained(loaded)} if args.untrained else {})
    features = {name: features_of(model, clips.source, clips.numbers, device=device) for name, model in models.items()}
    infos = features[shown.name].infos
    if len(infos) < _FEWEST:
        raise ValueError(f"{len(infos)} clips are too few for a map; {_FEWEST} are needed")
    labels = shown.run.model.get("labels") or {}
    classes, dimensions = ([*(labels.get(kind) or {})] for kind in ("classes", "dimensions"))
    groups = group_by(infos, args.by) if args.by else group_clips(infos, classes or ["emotion"], dimensions)
    others = " of other speakers" if groups.subjects else ""
    whose = "" if args.untrained else f"{shown.name}: "
    draw_feature_grid(
        [feature_maps(name, found, groups) for name, found in features.items()],
        groups.numbers, groups.names, args.out, said=groups.said,
        title=f"{whose}{clips.said}; recall: by vote of the {NEIGHBOURS} nearest clips{others}",
        chance=1 / len(np.unique(groups.numbers)),
    )  # fmt: skip
    _wrote(args.out, more=f", {clips.said}, by {groups.said}")


def _attention(args: argparse.Namespace) -> None:
    from hicmae.figures.attention import AttentionPicture, attention_pages, draw_attention
    from hicmae.figures.moving_picture import Sound, save_moving
    from hicmae.report.clip_attention import attention_in
    from hicmae.report.shown_model import find_model

    shown = find_model(args.model)
    loaded = shown.backbone()
    if args.out.suffix in _MOVING and "video" not in loaded.modalities:
        raise ValueError(
            f"{args.model} takes sound alone, so it looks at no picture that could play; write a still: "
            f"--out {args.out.with_suffix('.png')}"
        )
    found = attention_in(loaded, args.media, layer=args.layer, position=args.position, device=_device(args.device))
    picture = AttentionPicture(
        frames=found.decoded.video if found.video is not None else None,
        video=found.video, log_mel=found.log_mel, audio=found.audio, video_reads=found.video_reads,
        audio_reads=found.audio_reads, seconds=found.seconds,
        title=f"{args.media.name}, {shown.name}: {found.said}",
    )  # fmt: skip
    if args.out.suffix == ".png":
        draw_attention(picture, args.out)
    elif picture.frames is None:
        raise ValueError(f"{args.media} has no picture that could play; write a still: --out X.png")
    else:
        per_frame = _pages_per_frame(args.out)
        pages = attention_pages(picture, side=args.size, pages_per_frame=per_frame)
        sound = None
        if found.decoded.has_audio:
            sound = Sound(waveform=found.decoded.waveform, rate_hz=loaded.spec.sample_rate_hz)
        save_moving(pages, args.out, page_s=loaded.spec.frame_interval_s / per_frame, sound=sound, quality=80)
    _wrote(args.out, more=f", {found.said}")


def _curves(args: argparse.Namespace) -> None:
    from hicmae.figures.overlay import OverlaySettings, draw_overlay
    from hicmae.report.run_overlay import read_courses, run_names

    settings = OverlaySettings(log=args.log, smooth=args.smooth, unit=args.x)
    if absent := [str(path) for path in args.runs if not path.is_dir()]:
        raise FileNotFoundError(f"no folder {', '.join(absent)}; give directories of runs")
    names = run_names(args.runs, _words(args.names))
    courses = read_courses(args.runs, names, _words(args.metric), args.x)
    draw_overlay(courses, args.out, settings=settings, title=args.title)
    _wrote(args.out, more=f", {', '.join(courses)} of {len(args.runs)} runs")


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
