"""Scores as text: names and units as papers give them."""

from __future__ import annotations

from collections.abc import Sequence

_TITLES = {
    "uar": "UAR",
    "war": "WAR",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "ccc": "CCC",
    "pcc": "PCC",
    "mae": "MAE",
    "rmse": "RMSE",
}
_PERCENT = ("uar", "war", "macro_f1", "weighted_f1")


def score_title(name: str) -> str:
    """``ccc_valence`` is shown as CCC valence, ``uar`` as UAR (%)."""
    for score, title in _TITLES.items():
        if name == score:
            return title + (" (%)" if score in _PERCENT else "")
        if name.startswith(f"{score}_"):
            return f"{title} {name.removeprefix(f'{score}_')}"
    return name


def show(name: str, value: float | None) -> str:
    """A score with the digits that papers give: shares as percent, coefficients as they are."""
    if value is None:
        return "-"
    return f"{100 * value:.2f}" if name in _PERCENT else f"{value:.4f}"


def show_interval(name: str, bounds: Sequence[float] | None) -> str:
    """Lower to upper bound."""
    return "-" if bounds is None else f"{show(name, bounds[0])} to {show(name, bounds[1])}"
