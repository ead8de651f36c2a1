"""Where the weights come from that a run starts with: what they have seen of the corpus already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hicmae.checkpoint import CHECKPOINT_PROTOCOL, read_export


def origin_of(init: Path | None) -> dict[str, Any] | None:
    """The protocol (``Protocol.to_dict``) of the fine-tuning that made ``model.init``; ``None`` for random weights,
    those of a pre-training, and those of whom nobody says it."""
    if init is None:
        return None
    if init.is_dir():
        provenance = read_export(init).provenance
        while "derived_from" in provenance:  # what changed weights have seen, too
            provenance = provenance["derived_from"].get("provenance", {})
        return provenance.get("protocol")
    if init.suffix != ".ckpt":
        return None
    checkpoint: dict[str, Any] = torch.load(init, map_location="cpu", weights_only=True, mmap=True)
    return checkpoint.get(CHECKPOINT_PROTOCOL)
