"""Random generators that depend on names alone, so that any process can make any clip at any time."""

from __future__ import annotations

import hashlib

import numpy as np


def generator_for(seed: int, *names: str) -> np.random.Generator:
    """A generator keyed by ``seed`` and ``names`` (say ``"clip", "s003-017"``), the same in every process."""
    digest = hashlib.blake2b("\x1f".join([str(seed), *names]).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))
