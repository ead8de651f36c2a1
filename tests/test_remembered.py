"""A folder's settings are held against those of now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hicmae.data.remembered import differences


def test_what_differs_is_named_with_both_values(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"size": 160, "margin": 0.3, "gone": 1}))
    assert differences(file, {"size": 160, "margin": 0.3}) == ""
    assert differences(file, {"size": 224, "new": "x"}) == "size: 160 there, 224 now, new: None there, 'x' now"


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"size": 16'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"settings.json: damaged .* remove .* and write again"):
        differences(file, {"size": 160})
