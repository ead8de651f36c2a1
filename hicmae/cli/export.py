"""``hicmae export``: a training checkpoint as a folder that ``load_backbone`` and ``load_recognizer`` read."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("checkpoint", help="a .ckpt of ours, the authors' .pth or .safetensors, or an exported folder")
    parser.add_argument("out", help="folder to write")
    parser.add_argument(
        "--backbone-only",
        action="store_true",
        help="leave out the head of a fine-tuned model (always for the authors')",
    )
    parser.add_argument(
        "--with-decoder", action="store_true", help="keep the decoders of a pre-training model, which are left out else"
    )


def run(args: argparse.Namespace) -> int:
    """Export; returns 0."""
    from hicmae.backbone import Backbone
    from hicmae.checkpoint import read_backbone, read_pretraining, read_provenance, read_recognizer, save_export

    provenance = read_provenance(args.checkpoint)
    weights = read_backbone(args.checkpoint)
    if args.with_decoder:
        pretraining = read_pretraining(args.checkpoint)
        if pretraining is None:
            raise ValueError(f"{args.checkpoint} holds no decoder: give a checkpoint of pre-training, or leave out "
                             "--with-decoder")  # fmt: skip
        folder = save_export(
            args.out, pretraining.backbone, spec=weights.spec, provenance=provenance, decoder=pretraining
        )
        sys.stdout.write(f"exported the backbone and the decoders to {folder}\n")
        return 0
    recognizer = None if args.backbone_only else read_recognizer(args.checkpoint)
    if recognizer is not None:
        folder = save_export(args.out, recognizer, spec=weights.spec, provenance=provenance)
    else:
        backbone = Backbone(weights.config, modalities=weights.modalities)
        backbone.load_state_dict(weights.state)
        folder = save_export(args.out, backbone, spec=weights.spec, provenance=provenance)
    sys.stdout.write(f"exported the {'recogniser' if recognizer is not None else 'backbone'} to {folder}\n")
    return 0
