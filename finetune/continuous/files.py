"""Small files that are whole or not there."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


def replace(path: Path, text: str) -> None:
    """Write a text file by way of a draft beside it."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    draft.replace(path)


def as_json(value: Any) -> str:
    """JSON as the standard has it: NaN, which it does not know, becomes null."""
    return json.dumps(_plain(value), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
