"""``hicmae export``: a checkpoint as a folder for this library, as an ONNX file, or as a program of torch.export."""

from __future__ import annotations

import argparse
import logging
import math
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hicmae.backbone import Backbone, Modality
    from hicmae.config import InputSpec
    from hicmae.portable.clips import Clips
    from hicmae.portable.folder import Written
    from hicmae.recognition import EmotionRecognizer

FORMATS = ("safetensors", "onnx", "torch-export")
MOST_CHECK_CLIPS = 64
"""More are too many to hold, and to run six times through a large model."""

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("checkpoint", help="a .ckpt of ours, the authors' .pth or .safetensors, or an exported folder")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="safetensors",
        help="safetensors: for load_backbone and load_recognizer; onnx: for onnxruntime and others; "
        "torch-export: a program for torch without this library",
    )
    parser.add_argument(
        "--backbone-only",
        action="store_true",
        help="leave out the head of a fine-tuned model",
    )
    parser.add_argument(
        "--with-decoder",
        action="store_true",
        help="safetensors: keep the decoders of a pre-training model, which are left out else",
    )
    parser.add_argument(
        "--modalities",
        choices=("both", "video", "audio"),
        help="onnx, torch-export: what the file takes; by default what the model was trained with",
    )
    parser.add_argument("--int8", action="store_true", help="onnx: weights of eight bits, smaller and faster")
    parser.add_argument(
        "--check-clips",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="onnx, torch-export: files, folders, patterns, manifests or shards to check with, beside noise (at most "
        f"{MOST_CHECK_CLIPS} clips, spread over all); by default a few synthetic talking faces",
    )


def run(args: argparse.Namespace) -> int:
    """Export; returns 0."""
    _refuse_meaningless(args)
    with _cleaning_up_when_stopped():
        return _export(args)


def _export(args: argparse.Namespace) -> int:
    from hicmae.backbone import Backbone
    from hicmae.checkpoint import read_backbone, read_pretraining, read_provenance, read_recognizer, save_export
    from hicmae.export_folder import refuse_foreign

    source = Path(args.checkpoint)
    if source.is_dir() and source.resolve() == args.out.resolve():
        raise ValueError(f"{args.out} is the checkpoint itself; choose another folder to write")
    refuse_foreign(args.out, args.format)
    provenance = read_provenance(source, backbone_only=args.backbone_only)
    weights = read_backbone(source)
    pretraining = read_pretraining(source) if args.with_decoder else None
    if args.with_decoder and pretraining is None:
        raise ValueError(f"{source} holds no decoder: give a checkpoint of pre-training, or leave out --with-decoder")
    recognizer = None if args.backbone_only or pretraining is not None else read_recognizer(source)
    model: Backbone | EmotionRecognizer
    if recognizer is not None:
        model = recognizer
    elif pretraining is not None:
        model = pretraining.backbone
    else:
        model = Backbone(weights.config, modalities=weights.modalities)
        model.load_state_dict(weights.state)
    if args.format == "safetensors":
        folder = save_export(args.out, model, spec=weights.spec, provenance=provenance, decoder=pretraining)
    else:
        written = _write_portable(args, model, weights.spec, provenance)
        folder = written.folder
        sys.stdout.write(_table(written))
    kind = "backbone" if isinstance(model, Backbone) else "recogniser"
    with_decoders = " and the decoders" if pretraining is not None else ""
    sys.stdout.write(f"exported the {kind}{with_decoders} to {folder}\n")
    return 0


@contextmanager
def _cleaning_up_when_stopped() -> Iterator[None]:
    """A SIGTERM (a batch system's, ``timeout``'s) ends by an exception, so that no half of an export stays behind."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _refuse_meaningless(args: argparse.Namespace) -> None:
    given = {"--modalities": args.modalities, "--check-clips": args.check_clips}
    if args.format == "safetensors":
        for name, value in given.items():
            if value:
                raise ValueError(f"{name} is for --format onnx and torch-export; a safetensors folder takes all")
    elif args.with_decoder:
        raise ValueError(f"--with-decoder is for --format safetensors, not for {args.format}")
    if args.int8 and args.format != "onnx":
        raise ValueError(f"--int8 is for --format onnx, not for {args.format}")


def _write_portable(
    args: argparse.Namespace,
    model: Backbone | EmotionRecognizer,
    spec: InputSpec,
    provenance: dict[str, Any],
) -> Written:
    from hicmae.backbone import MODALITIES
    from hicmae.portable.folder import write_folder
    from hicmae.portable.formats import FORMATS as PORTABLE

    PORTABLE[args.format].check_installed()
    trained_with = wanted = model.modalities
    if args.modalities is not None:
        wanted = tuple(m for m in MODALITIES if args.modalities in (m, "both"))
    untrained = [modality for modality in wanted if modality not in trained_with]
    if untrained:
        raise ValueError(
            f"{args.checkpoint} was trained with {' and '.join(trained_with)}, not with {' and '.join(untrained)}; "
            f"leave --modalities out, or give --modalities {trained_with[0]}"
        )
    return write_folder(
        args.out,
        model,
        spec=spec,
        modalities=wanted,
        format=args.format,
        int8=args.int8,
        real_clips=_check_clips(args, spec, wanted),
        provenance=provenance,
    )


def _check_clips(args: argparse.Namespace, spec: InputSpec, modalities: tuple[Modality, ...]) -> Clips:
    from hicmae.inference.items import find_items
    from hicmae.portable.clips import read_clips, synthetic_clips

    if args.check_clips is None:
        return synthetic_clips(spec)
    items = find_items(args.check_clips)
    chosen = items[:: math.ceil(len(items) / MOST_CHECK_CLIPS)]
    if len(chosen) < len(items):
        logger.warning("checking with %d of the %d clips given, spread over them", len(chosen), len(items))
    return read_clips(chosen, spec, modalities)


def _table(written: Written) -> str:
    """The largest difference of every output, over all batches."""
    worst: dict[tuple[str, str], tuple[float, float]] = {}
    for one in written.deviations:
        key = (one.file, one.output)
        worst[key] = max(worst.get(key, (0.0, one.tolerance)), (one.largest, one.tolerance))
    lines = ["largest difference to eager PyTorch, over noise and real clips in batches of 1 and 3:"]
    lines += [f"  {file}: {output} {largest:.1e} (allowed {tol:g})" for (file, output), (largest, tol) in worst.items()]
    if written.int8_costs:
        lines.append("int8 against eager PyTorch, on real clips:")
        lines += [
            f"  model: {cost.output} {cost.largest:.1e}, least cosine {cost.least_cosine:.6f}"
            for cost in written.int8_costs
        ]
    return "\n".join(lines) + "\n"
