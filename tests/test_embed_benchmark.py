"""What the benchmark of embedding says of a machine."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.embed import page

DOCS = Path(__file__).parent.parent / "docs" / "benchmarks"


def test_the_page_is_that_of_its_figures() -> None:
    assert page(json.loads((DOCS / "embed.json").read_text())) == (DOCS / "embed.md").read_text()
