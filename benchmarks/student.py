"""What a teacher is worth to a small student, and how fast recognisers of each size are on one core.

``python benchmarks/student.py train --out student_benchmark`` trains a teacher and, over three seeds, a student with
and without it, on SYNTHETIC talking faces (docs/synthetic.md): the scores say nothing about human emotion. Give the
line again after an interruption: finished runs are kept. ``python benchmarks/student.py speed`` times recognisers with
random weights (speed does not depend on them) on a synthetic video, from the file on disk to the answer.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from hicmae import __version__
from hicmae.backbone import Backbone
from hicmae.config import PRESETS, InputSpec, ModelConfig
from hicmae.data.synthetic.corpus import CorpusSettings, plan_clips, render_clip, write_corpus, write_mp4
from hicmae.data.synthetic.emotions import EMOTIONS
from hicmae.heads import categorical
from hicmae.media.decode import decode_clip
from hicmae.recognition import EmotionRecognizer
from hicmae.transform import ClipTransform

ROOT = Path(__file__).parent.parent
SEEDS = (0, 1, 2)
CORPUS = CorpusSettings(
    speakers=36, val_speakers=4, test_speakers=12, clips_per_speaker=16, unlabelled_speakers=0, size=64,
    min_seconds=2.8, max_seconds=3.4,
)  # fmt: skip
# Both are cut down until six trainings fit into minutes on a busy core: 8 frames, and audio patches of 32 x 32.
TEACHER = {"image_size": 48, "num_frames": 8, "audio_patch_size": 32}
STUDENT = {
    "image_size": 32, "num_frames": 8, "audio_patch_size": 32, "width": 48, "heads": 3, "depth": 2, "fusion_depth": 1,
    "taps": [0, 1], "decoder_depth": 3,
}  # fmt: skip
TEACHER_EPOCHS, STUDENT_EPOCHS = 40, 6
RESAMPLES = 2000
CHECKPOINTS = ("best", "last")
"""Best on 64 validation clips, which is mostly chance; and last."""
HOP_S = 0.5


# ---------------------------------------------------------------- scores


def train(root: Path, epochs: tuple[int, int]) -> dict[str, Any]:
    """Make the corpus, train what is not finished, and compare."""
    manifest = write_corpus(root / "corpus", CORPUS, workers=1)
    teacher = root / "teacher"
    fit(manifest, teacher, TEACHER, epochs[0])
    for seed in SEEDS:
        seeded = [f"--data.seed={seed}", f"--seed_everything={seed}"]
        fit(manifest, root / f"alone_{seed}", STUDENT, epochs[1], *seeded)
        fit(manifest, root / f"taught_{seed}", STUDENT, epochs[1], f"--model.teacher={teacher / 'export'}", *seeded)
    return {
        "corpus": "SYNTHETIC talking faces (docs/synthetic.md), 20 speakers for training, 12 for the test",
        "epochs": {"teacher": epochs[0], "student": epochs[1]},
        "teacher": scores(teacher),
        "alone": {str(seed): scores(root / f"alone_{seed}") for seed in SEEDS},
        "taught": {str(seed): scores(root / f"taught_{seed}") for seed in SEEDS},
        "difference_of_uar": {checkpoint: difference(root, checkpoint) for checkpoint in CHECKPOINTS},
    }


def fit(manifest: Path, out: Path, architecture: dict[str, Any], epochs: int, *more: str) -> None:
    """One training by the demo's recipe, if it is not finished."""
    if (out / "export" / "config.json").is_file():
        return
    given = {
        "config": ROOT / "configs" / "finetune" / "demo.yaml", "model.init": "null", "model.preset": "micro",
        "model.architecture": json.dumps(architecture), "model.input": "{frame_interval_s: 0.32}",
        "model.labels.dimensions": "{}", "model.mixing.probability": 0, "data.manifest": manifest,
        "data.num_workers": 0, "trainer.default_root_dir": out, "trainer.max_epochs": epochs,
        "trainer.check_val_every_n_epoch": max(2, epochs // 10), "trainer.log_every_n_steps": 20, "ckpt_path": "auto",
        "wandb": "off",
    }  # fmt: skip
    command = [sys.executable, "-m", "finetune", "fit", *(f"--{name}={value}" for name, value in given.items()), *more]
    sys.stderr.write(f"training {out.name}\n")
    with (out.parent / f"{out.name}.log").open("ab") as log:
        subprocess.run(command, check=True, cwd=ROOT, stdout=log, stderr=log)


def scores(run: Path) -> dict[str, Any]:
    """Test scores of both checkpoints."""
    metrics = json.loads((run / "metrics.json").read_text())
    config = json.loads((run / "export" / "config.json").read_text())
    tests = {checkpoint: metrics[checkpoint]["test"] for checkpoint in CHECKPOINTS}
    found = {
        name: {"uar": test["uar"], "interval": test["intervals"]["uar"], "arousal_told_apart": told_apart(run, name)}
        for name, test in tests.items()
    }
    return {**found, "clips": tests["last"]["clips"], "parameters": config["parameters"]}


def difference(root: Path, checkpoint: str) -> dict[str, Any]:
    """UAR with teacher minus without, mean over the seeds; interval by drawing test speakers, the same for both."""
    subjects = sorted(set(predictions(root / "alone_0", checkpoint)["subject"]))
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(subjects), size=(RESAMPLES, len(subjects)))
    times = np.stack([np.bincount(one, minlength=len(subjects)) for one in drawn])
    times = np.concatenate([np.ones((1, len(subjects))), times])  # (R + 1, speakers); first, everyone once
    gaps = [
        uar(predictions(root / f"taught_{seed}", checkpoint), subjects, times)
        - uar(predictions(root / f"alone_{seed}", checkpoint), subjects, times)
        for seed in SEEDS
    ]
    found = np.mean(gaps, axis=0)
    return {"mean": float(found[0]), "interval": np.nanquantile(found[1:], [0.025, 0.975]).tolist()}


def predictions(run: Path, checkpoint: str) -> pd.DataFrame:
    """What a checkpoint says of the test clips."""
    table = pd.read_parquet(run / "predictions.parquet")
    table = table[(table["checkpoint"] == checkpoint) & (table["split"] == "test")]
    return table.assign(hit=table["label"] == table["predicted"])


def told_apart(run: Path, checkpoint: str) -> float:
    """Share of test clips whose class is taken for one of the same arousal; guessing: 0.5."""
    aroused = [name for name, emotion in EMOTIONS.items() if emotion.arousal > 0]
    table = predictions(run, checkpoint)
    return float((table["label"].isin(aroused) == table["predicted"].isin(aroused)).mean())


def uar(table: pd.DataFrame, subjects: list[str], times: np.ndarray) -> np.ndarray:
    """Mean over classes of the share of clips recognised, where each speaker counts so many times: (R, speakers) to
    (R,)."""
    cells = table.groupby(["subject", "label"])["hit"]
    hits, clips = (each.unstack(fill_value=0).loc[subjects].to_numpy() for each in (cells.sum(), cells.count()))
    return (times @ hits / (times @ clips)).mean(axis=1)


def train_table(result: dict[str, Any]) -> str:
    """Markdown of ``train``."""
    lines = ["| UAR on the synthetic test | parameters | best on validation | last |", "|---|---|---|---|"]
    rows = [("teacher", result["teacher"])]
    rows += [
        (f"student {kind}, seed {seed}", result[kind][str(seed)]) for kind in ("alone", "taught") for seed in SEEDS
    ]
    for name, row in rows:
        cells = [f"{row[one]['uar']:.3f} {_bounds(row[one]['interval'])}" for one in CHECKPOINTS]
        lines.append(f"| {name} | {row['parameters'] / 1e6:.2f} M | {' | '.join(cells)} |")
    for kind in ("alone", "taught"):
        means = [statistics.mean(row[one]["uar"] for row in result[kind].values()) for one in CHECKPOINTS]
        lines.append(f"| student {kind}, mean | | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    gaps = [result["difference_of_uar"][one] for one in CHECKPOINTS]
    shown = [f"{gap['mean']:+.3f} {_bounds(gap['interval'], '+')}" for gap in gaps]
    lines.append(f"| taught - alone | | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _bounds(interval: list[float], sign: str = "") -> str:
    return f"[{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]"


# ---------------------------------------------------------------- speed


def speed(presets: list[str], sides: list[int], seconds: float, repeats: int) -> dict[str, Any]:
    """CPU seconds of one thread for a window, from the file to the answer, by size of the model and of the picture."""
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for side in sides:
            settings = CorpusSettings(
                size=side, speakers=3, val_speakers=1, test_speakers=1, min_seconds=seconds, max_seconds=seconds
            )
            path = Path(folder) / f"{side}.mp4"
            write_mp4(path, *render_clip(plan_clips(settings)[0], settings))
            for preset in presets:
                rows.append(time_preset(preset, path, side, repeats))
                sys.stderr.write(f"{rows[-1]}\n")
    return {"seconds_of_video": seconds, "hop_s": HOP_S, "rows": rows}


@torch.inference_mode()
def time_preset(preset: str, path: Path, side: int, repeats: int) -> dict[str, Any]:
    """Median costs of a window at places drawn over the file."""
    config = ModelConfig.preset(preset)
    spec = InputSpec.for_model(config)
    model = EmotionRecognizer(Backbone(config), categorical(8)).eval()
    transform = ClipTransform(spec)
    rng = np.random.default_rng(0)
    inputs = transform(path)

    def decode() -> None:
        decode_clip(path.read_bytes(), spec=spec, position=rng.random(), name=path.name)

    costs = {
        "decode_ms": cpu_ms(decode, repeats),
        "model_ms": cpu_ms(lambda: model(**inputs), repeats),
        "window_ms": cpu_ms(lambda: model(**transform(path, position=rng.random())), repeats),
    }
    window_s = costs["window_ms"] / 1000
    return {
        "preset": preset,
        "image_size": config.image_size,
        "parameters": sum(p.numel() for p in model.parameters()),
        "video_side": side,
        **costs,
        "real_time_side_by_side": spec.window_seconds / window_s,
        "real_time_at_hop": HOP_S / window_s,
    }


def cpu_ms(run: Callable[[], object], repeats: int) -> float:
    """Median processor time of a call in milliseconds, all threads of this process together: what others do on the
    machine does not count, as it would in time by the clock."""
    run()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        times.append(time.process_time() - started)
    return 1000 * statistics.median(times)


def speed_table(result: dict[str, Any]) -> str:
    """Markdown of ``speed``."""
    lines = [
        "| size | parameters | frames | picture | decode | model | whole window | real time, side by side | "
        f"real time, a window every {HOP_S:g} s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['preset']} | {row['parameters'] / 1e6:.1f} M | {row['image_size']} px | {row['video_side']} px | "
            f"{row['decode_ms']:.0f} ms | {row['model_ms']:.0f} ms | {row['window_ms']:.0f} ms | "
            f"{row['real_time_side_by_side']:.1f}x | {row['real_time_at_hop']:.1f}x |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run one half and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "speed"])
    parser.add_argument("--out", type=Path, default=Path("student_benchmark"), help="folder of the trainings")
    parser.add_argument("--epochs", type=int, nargs=2, default=(TEACHER_EPOCHS, STUDENT_EPOCHS), metavar=("T", "S"),
                        help="of teacher and student")  # fmt: skip
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=list(PRESETS), help="sizes timed")
    parser.add_argument("--sides", type=int, nargs="+", default=[160, 720], help="sides of the timed videos, in pixels")
    parser.add_argument("--seconds", type=float, default=12.0, help="length of the timed videos")
    parser.add_argument("--repeats", type=int, default=9, help="timed windows; the median is shown")
    parser.add_argument("--json", type=Path, help="file whose entry TRAIN or SPEED is replaced by the result")
    args = parser.parse_args()
    if args.what == "train":
        args.out.mkdir(parents=True, exist_ok=True)
        result = train(args.out.resolve(), tuple(args.epochs))
        table = train_table(result)
    else:
        result = speed(args.presets, args.sides, args.seconds, args.repeats)
        table = speed_table(result)
    sys.stdout.write(table)
    if args.json:
        known = json.loads(args.json.read_text()) if args.json.is_file() else {}
        machine = {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "hicmae": __version__,
            "torch": torch.__version__,
        }
        args.json.write_text(json.dumps(known | {args.what: machine | result}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
