"""Matplotlib without a screen, and files that appear whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def save_figure(figure: Any, path: str | Path) -> Path:
    """Write a PNG (by way of a temporary name) and close the figure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.draft.png")
    figure.savefig(draft, dpi=110, bbox_inches="tight")
    plt.close(figure)
    draft.replace(path)
    return path
