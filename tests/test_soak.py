"""The soak in small, and that it would tell what it is there to tell."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import soak

PLANTED = soak.Planted(
    folders=(), rejected=6, bad={"bad_0": "checksum_mismatch", "bad_1": "no_video_stream"}, good=frozenset("abcd")
)


@pytest.mark.slow
def test_twenty_seconds_of_soak_are_as_planted(tmp_path: Path) -> None:
    root = Path(soak.__file__).parent.parent
    command = [sys.executable, "benchmarks/soak.py", "--minutes", "0.33", "--clips", "48", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all as planted" in done.stdout
    result = json.loads((tmp_path / "soak.json").read_text())
    planted = {"checksum_mismatch": 6, "shard_truncated": 2, "no_video_stream": 4}
    assert result["rejected_at_packing"] == 6
    assert result["skipped"]
    assert all(epoch == planted for epoch in result["skipped"])
    assert result["replayed_batches"] >= len(result["skipped"])
    assert set(result["rss_mb"]) == {"parent", "worker 0", "worker 1"}
    assert (tmp_path / "soak.png").stat().st_size > 5000


def test_growth_is_told_and_outliers_are_not() -> None:
    times = np.arange(200.0)
    noisy = 500 + np.random.default_rng(0).normal(0, 2, 200)
    noisy[::9] += 300
    assert abs(soak.growth(times, noisy)) < 2
    assert soak.growth(times, noisy + 0.5 * times) == pytest.approx(0.5 * 149, rel=0.05)
    assert soak.growth(times, np.minimum(times, 40)) == 0  # what fills up during the warm-up is no growth
    with pytest.raises(ValueError, match="run for longer"):
        soak.growth(times[:2], times[:2])


@pytest.mark.parametrize(
    ("delivered", "skipped", "complaint"),
    [
        (dict(a=2, b=1, c=1, d=2), dict(PLANTED.bad), None),
        (dict(a=2, b=1, c=1, d=2), {"bad_0": "checksum_mismatch"}, "bad_1"),
        (dict(a=2, b=1, c=1, d=2), {**PLANTED.bad, "a": "corrupt_frames"}, "corrupt_frames"),
        (dict(a=2, b=1, c=1, d=2), {**PLANTED.bad, "bad_1": "truncated"}, "truncated"),
        (dict(a=3, b=1, d=2), dict(PLANTED.bad), "not the good ones: c"),
        (dict(a=2, b=1, c=1, d=1, bad_0=1), dict(PLANTED.bad), "not the good ones: bad_0"),
        (dict(a=1, b=1, c=1, d=1), dict(PLANTED.bad), "4 clips delivered"),
    ],
)
def test_an_epoch_that_is_not_as_planted_is_told(
    delivered: dict[str, int], skipped: dict[str, str], complaint: str | None
) -> None:
    found = soak.epoch_problems(PLANTED, Counter(delivered), Counter(skipped.items()), epoch=0)
    assert len(found) == (complaint is not None)
    assert complaint is None or complaint in found[0]


def _watch(**changes: Any) -> soak.Watch:
    flat = soak.Watch(
        times_s=[float(t) for t in range(100)],
        rss_mb={"parent": [500.0] * 100, "worker 0": [400.0] * 100},
        files={"parent": [50] * 100, "worker 0": [40] * 100},
        skipped=[{"checksum_mismatch": 1, "no_video_stream": 1}],
        batches=100,
        replayed=1,
    )
    return dataclasses.replace(flat, **changes)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({}, None),
        ({"rss_mb": {"parent": [500.0] * 100, "worker 0": [400.0 + t for t in range(100)]}}, "worker 0: memory grew"),
        ({"files": {"parent": list(range(100)), "worker 0": [40] * 100}}, "parent: open files grew"),
        ({"skipped": []}, "not one whole epoch"),
        ({"problems": ["epoch 3, batch 1: video differs when built again"]}, "video differs"),
    ],
)
def test_what_is_not_as_it_should_be_is_reported(changes: dict[str, Any], complaint: str | None) -> None:
    result = soak.report(PLANTED, _watch(**changes), seconds=100)
    assert len(result["problems"]) == (complaint is not None)
    assert complaint is None or complaint in soak.table(result)
    assert ("all as planted" in soak.table(result)) == (complaint is None)
