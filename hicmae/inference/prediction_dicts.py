"""Predictions as plain values: what JSON files hold, what journals keep, and rows of tables.

JSON has the schema 1: see docs/predict.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hicmae.heads import Targets
from hicmae.inference.results import FilePrediction, LeftOut, WindowPrediction

SCHEMA = 1

Said = WindowPrediction | FilePrediction


def prediction_to_dict(prediction: FilePrediction) -> dict[str, Any]:
    """Plain values for JSON, without the names of targets that the model has."""
    return {
        "name": prediction.name,
        "duration_s": prediction.duration_s,
        **_said(prediction, prediction.targets),
        "warnings": list(prediction.warnings),
        "left_out": [vars(out) for out in prediction.left_out],
        "windows": [
            {
                "start_s": window.start_s,
                "end_s": window.end_s,
                "modalities": list(window.modalities),
                "blanked": list(window.blanked),
                **_said(window, prediction.targets),
            }
            for window in prediction.windows
        ],
    }


def prediction_from_dict(values: Mapping[str, Any], targets: Targets, model: str) -> FilePrediction:
    """The inverse of ``prediction_to_dict``."""
    return FilePrediction(
        name=values["name"],
        duration_s=values["duration_s"],
        targets=targets,
        windows=tuple(
            WindowPrediction(
                start_s=window["start_s"],
                end_s=window["end_s"],
                modalities=tuple(window["modalities"]),
                blanked=tuple(window["blanked"]),
                probabilities=_column(window["probabilities"]),
                values=_column(window["values"]),
            )
            for window in values["windows"]
        ),
        warnings=tuple(values["warnings"]),
        left_out=tuple(LeftOut(**out) for out in values["left_out"]),
        model=model,
    )


def file_row(prediction: FilePrediction) -> dict[str, Any]:
    """A row of the table of files: ``name``, ``duration_s``, ``windows``, ``left_out``, then what is said."""
    return {
        "name": prediction.name,
        "duration_s": round(prediction.duration_s, 3),
        "windows": len(prediction.windows),
        "left_out": len(prediction.left_out),
        "blanked": "+".join(sorted({modality for window in prediction.windows for modality in window.blanked})),
        **_row(prediction, prediction.targets),
        "warnings": "; ".join(prediction.warnings),
    }


def window_rows(prediction: FilePrediction) -> list[dict[str, Any]]:
    """Rows of the table of windows, in order of time; those left out have a reason and nothing else is said of them."""
    empty: dict[str, Any] = dict.fromkeys(_row(prediction, prediction.targets))
    rows = [
        {"name": prediction.name, "start_s": window.start_s, "end_s": window.end_s,
         "modalities": "+".join(window.modalities), "blanked": "+".join(window.blanked), "left_out": "",
         **_row(window, prediction.targets)}
        for window in prediction.windows
    ]  # fmt: skip
    rows += [
        {"name": prediction.name, "start_s": out.start_s, "end_s": out.end_s, "modalities": "", "blanked": "",
         "left_out": out.reason, **empty}
        for out in prediction.left_out
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (row["start_s"], row["end_s"]))


def _said(said: Said, targets: Targets) -> dict[str, Any]:
    """Label, probabilities by class and values by dimension, each ``None`` where there are none."""
    probabilities, values = said.probabilities, said.values
    return {
        "label": None if probabilities is None else targets.classes[int(probabilities.argmax())],
        "probabilities": None if probabilities is None else _by_name(targets.classes, probabilities),
        "values": None if values is None else _by_name(targets.dimensions, values),
    }


def _row(said: Said, targets: Targets) -> dict[str, Any]:
    row: dict[str, Any] = {}
    if said.probabilities is not None:
        row["label"] = targets.classes[int(said.probabilities.argmax())]
        row |= {f"probability_{name}": p for name, p in _by_name(targets.classes, said.probabilities).items()}
    if said.values is not None:
        row |= {f"value_{name}": value for name, value in _by_name(targets.dimensions, said.values).items()}
    return row


def _by_name(names: tuple[str, ...], numbers: NDArray[np.float32]) -> dict[str, float]:
    return dict(zip(names, map(float, numbers), strict=True))


def _column(by_name: Mapping[str, float] | None) -> NDArray[np.float32] | None:
    return None if by_name is None else np.array(list(by_name.values()), dtype=np.float32)
