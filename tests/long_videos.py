"""Features of long videos for tests: noise with a speaker's own offset and gain, in which a known curve is hidden."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hicmae.continuous.features import Features
from hicmae.continuous.prediction import LabelledVideo
from hicmae.continuous.synthetic import emotion_curve

WIDTH = 16


def labelled_video(number: int, *, steps: int = 400, split: str = "train", unlabelled: slice | None = None,
                   noise: float = 0.5) -> LabelledVideo:  # fmt: skip
    """A video whose first stream shows the valence, and whose second stream the arousal, both under a speaker's offset
    and gain and with noise in every step."""
    rng = np.random.default_rng(1000 + number)
    curves = np.stack([emotion_curve(rng, steps, fastest_hz=0.4) for _ in range(2)], axis=1)
    directions = np.random.default_rng(7).normal(size=(2, WIDTH))  # the same for all speakers
    streams = {}
    for k, name in enumerate(("video", "audio")):
        offset, gain = rng.normal(0, 0.3, WIDTH), rng.uniform(0.8, 1.2)
        values = offset + gain * curves[:, k, None] * directions[k] + rng.normal(0, noise, (steps, WIDTH))
        streams[name] = values.astype(np.float16)
    labels = curves.astype(np.float32)
    if unlabelled is not None:
        labels[unlabelled] = np.nan
    there = np.ones(steps, dtype=bool)
    features = Features(
        name=f"v{number}", digest=f"{number} {steps}", frames=steps,
        steps=np.arange(steps), times_s=np.arange(steps) / 25, streams=streams,
        present={"video": there, "audio": there.copy()},
    )  # fmt: skip
    return LabelledVideo(name=f"v{number}", subject=f"s{number}", split=split, features=features, labels=labels)


def write_affwild2(root: Path, rows: dict[str, dict[str, str]]) -> Path:
    """Annotation files by partition and name, below ``root/VA_Set``, which is returned."""
    for part, files in rows.items():
        folder = root / "VA_Set" / part
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / f"{name}.txt").write_text(text)
    return root / "VA_Set"
