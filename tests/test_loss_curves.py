"""The comparison of ways to train, in small: the same training stays within the bounds, and another does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import loss_curves
from benchmarks.loss_curves import LOSSES, NUDGED, PLAIN, WAYS, Curves, bounds, drift, report, run
from hicmae.pretraining import Objective

STEPS = 4
SAME = [way for way in WAYS if way.compile == "off" and way.processes == 1]


@pytest.fixture(scope="module")
def curves() -> dict[str, Curves]:
    return {way.name: run(way, STEPS) for way in [PLAIN, *NUDGED, *SAME]}


def test_micro_batches_recomputation_and_bfloat16_are_the_same_training(curves):
    rows, _ = report(curves)
    assert [row["way"] for row in rows] == [way.name for way in SAME]
    assert all(row["of_bound"] <= 1 for row in rows), rows


def test_another_training_leaves_the_bounds(curves, monkeypatch):
    monkeypatch.setattr(loss_curves, "OBJECTIVE", Objective(contrastive_weight=0.1, temperature=0.072))
    found = drift(run(replace(PLAIN, name="other"), STEPS), curves[PLAIN.name])
    bound = bounds([drift(curves[way.name], curves[PLAIN.name]) for way in NUDGED if way.nudge < 1e-6])
    assert max(found["loss"]) > 10 * max(bound["loss"])
    assert set(found) == set(LOSSES)
