"""The card of a benchmark that does not exist."""

from __future__ import annotations

import sys

import pytest

from hicmae import benchmarks
from hicmae.benchmarks.card import Card, Native, Published
from hicmae.data.labels import LabelSpec
from tests.corpus import EMOTIONS


def make_known(monkeypatch: pytest.MonkeyPatch, **settings: object) -> Card:
    """A card that is found under the name ``two_folds``."""
    fields: dict[str, object] = {
        "name": "two_folds", "title": "Two Folds", "labels": LabelSpec(classes={"emotion": EMOTIONS}), "folds": 2,
        "fold_rule": "", "metrics": ("war", "uar"), "obtain": "", "layout": "", "confirmed": (), "unconfirmed": (),
        "read": lambda root: Native(clips=()),
        "published": (
            Published(
                method="Of sound alone", source="", protocol="", scores={"uar": 0.7}, modalities=("audio",)
            ),
            Published(method="Somebody", source="a table", protocol="chosen by a coin", scores={"uar": 0.8491}),
            Published(method="Of another task", source="", protocol="", scores={"uar": 0.1}, column="label:other"),
        ),
    }  # fmt: skip
    card = Card(**(fields | settings))  # type: ignore[arg-type]
    monkeypatch.setitem(benchmarks._CARDS, "two_folds", ("card", "two_folds"))
    monkeypatch.setattr(sys.modules["hicmae.benchmarks.card"], "two_folds", card, raising=False)
    return card
