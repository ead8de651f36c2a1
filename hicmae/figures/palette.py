"""Colours that several lines or groups have, told apart by most eyes and on light and dark."""

from __future__ import annotations

COLOURS = (
    "#3b7dd8",
    "#e0803a",
    "#2f9e62",
    "#c94f7c",
    "#8a63d2",
    "#b5a12a",
    "#23a3a8",
    "#d6493e",
    "#7a8796",
    "#9c6b3f",
)
OTHERS = "#8a929e"
"""Of groups beyond these."""
