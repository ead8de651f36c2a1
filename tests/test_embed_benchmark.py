"""What the benchmark of embedding says of a machine."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.embed import macs_of_a_window, page
from hicmae.backbone import Backbone
from hicmae.config import ModelConfig
from hicmae.transform import ModelInputs

DOCS = Path(__file__).parent.parent / "docs" / "benchmarks"


@pytest.mark.parametrize(("preset", "published"), [("tiny", 13.81), ("small", 27.65), ("base", 46.11)])
def test_multiply_adds_are_those_of_the_paper(preset: str, published: float) -> None:
    with torch.device("meta"):
        backbone = Backbone(ModelConfig.preset(preset)).eval()
        inputs = ModelInputs(video=torch.empty(1, 3, 16, 160, 160), log_mel=torch.empty(1, 1, 256, 128))
    macs = macs_of_a_window(SimpleNamespace(backbone=backbone), inputs)  # type: ignore[arg-type]
    assert macs / 1e9 == pytest.approx(published, rel=1e-3)


def test_the_page_is_that_of_its_figures() -> None:
    assert page(json.loads((DOCS / "embed.json").read_text())) == (DOCS / "embed.md").read_text()
