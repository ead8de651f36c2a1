"""The estimate of scaling: its page and the page about clusters say what the configuration gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.scaling import forward_macs
from hicmae.config import ModelConfig
from hicmae.flops import pretraining_macs

DOCS = Path(__file__).parent.parent / "docs"


def test_the_arithmetic_is_that_of_the_papers_masks() -> None:
    assert forward_macs(ModelConfig()) == pretraining_macs(ModelConfig(), video_visible=80, audio_visible=26)


@pytest.mark.parametrize("preset", ["base", "large"])
def test_the_pages_are_of_this_model(preset: str) -> None:
    macs = forward_macs(ModelConfig.preset(preset))
    found = {row["macs"] for row in json.loads((DOCS / "benchmarks" / "scaling.json").read_text())["rows"]
             if row["preset"] == preset}  # fmt: skip
    assert found == {macs}
    page = (DOCS / "cluster.md").read_text(encoding="utf-8")
    line = next(line for line in page.splitlines() if line.startswith("| multiply-adds of a clip"))
    assert f" {macs / 1e9:.2f} G " in line
