"""What a folder remembers of how it was made, held against how it is to be made now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def differences(file: Path, values: Mapping[str, Any]) -> str:
    """Names and both values of what a JSON object in ``file`` says otherwise than ``values``; empty: nothing.

    Raises:
        ValueError: the file does not hold a JSON object.
    """
    try:
        return differences_of(json.loads(file.read_text(encoding="utf-8")), values)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file}: damaged ({error}); remove {file.parent} and write again") from error


def differences_of(there: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """The same for values that have been read."""
    differing = {name: there.get(name) for name in values if there.get(name) != values[name]}
    return ", ".join(f"{name}: {old!r} there, {values[name]!r} now" for name, old in differing.items())
