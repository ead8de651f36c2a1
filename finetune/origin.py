"""Where the weights come from that a run starts with, or learns from: what they have seen of the corpus already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from hicmae.checkpoint import CHECKPOINT_PROTOCOL, CHECKPOINT_PROVENANCE, read_export


def origin_of(init: Path | None) -> dict[str, Any] | None:
    """The protocol (``Protocol.to_dict``) of the fine-tuning that made ``model.init``; ``None`` for random weights,
    those of a pre-training, and those of whom nobody says it."""
    return None if init is None else _before_changes(_provenance(init)).get("protocol")


def origins_of(source: Path | None) -> list[tuple[str, dict[str, Any]]]:
    """The protocols of all fine-tunings that went into a start or a teacher: its own, and those of whatever it was
    started from or taught by in its turn. Each with words that name it."""
    return [] if source is None else list(_descent(_provenance(source), str(source)))


def _provenance(source: Path) -> dict[str, Any]:
    if source.is_dir():
        return read_export(source).provenance
    if source.suffix != ".ckpt":
        return {}
    checkpoint: dict[str, Any] = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
    protocol = checkpoint.get(CHECKPOINT_PROTOCOL)
    return checkpoint.get(CHECKPOINT_PROVENANCE, {}) | ({} if protocol is None else {"protocol": protocol})


def _descent(provenance: Mapping[str, Any], what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    provenance = _before_changes(provenance)
    if provenance.get("protocol"):
        yield what, provenance["protocol"]
    for role in ("init", "teacher"):
        parent = provenance.get(role)
        if isinstance(parent, Mapping) and isinstance(parent.get("provenance"), Mapping):
            yield from _descent(parent["provenance"], f"{what}, whose {role} {parent['name']}")


def _before_changes(provenance: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the weights that changed ones, or a backbone cut from a recogniser, are derived from: they saw the same."""
    while "derived_from" in provenance:
        provenance = provenance["derived_from"].get("provenance", {})
    return provenance
