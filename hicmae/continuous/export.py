"""Trained heads in folders: ``model.safetensors`` and ``config.json``, which says what the head reads and predicts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hicmae.continuous.leader_follower import LeaderFollower, LeaderFollowerConfig
from hicmae.weights_file import read_weights, write_weights

_KIND = "leader_follower"


def save_head(folder: Path, model: LeaderFollower, about: Mapping[str, Any]) -> None:
    """Write a head; ``about`` says further things of it (targets, window, ...), as plain values."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(model.state_dict(), folder / "model.safetensors")
    inputs = {name: len(getattr(model, f"mean_{name}")) for name in model.streams}
    settings = {**about, "kind": _KIND, "inputs": inputs, "model": asdict(model.config)}
    draft = folder / ".config.json.draft"
    draft.write_text(json.dumps(settings, indent=2) + "\n")
    draft.replace(folder / "config.json")


def load_head(folder: Path) -> tuple[LeaderFollower, dict[str, Any]]:
    """A head in evaluation mode, and what ``config.json`` says of it: ``targets`` in the order of the outputs,
    ``inputs`` (width of every stream, the leader first), ``window``, ``every``, ``limits`` and ``centre_features``.

    ``predict_frames(head, video, WindowSettings(**about["window"]), batch_size=8)`` predicts a video's frames, to be
    cut to the limits; where ``centre_features`` is true, it takes ``centred(video, head.streams)``.

    Raises:
        FileNotFoundError, ValueError: nothing there, or no head.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; give folds/N/export of a finished run")
    about: dict[str, Any] = json.loads(path.read_text())
    if about.get("kind") != _KIND:
        raise ValueError(f"{path} describes a {about.get('kind')}, not a head of python -m finetune continuous")
    model = LeaderFollower(about["inputs"], len(about["targets"]), LeaderFollowerConfig(**about["model"]))
    model.load_state_dict(read_weights(folder / "model.safetensors"))
    return model.eval(), about
