"""Run directories of milliseconds: the files that training leaves, without the training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from finetune.evaluation import evaluate
from hicmae.backbone import Backbone
from hicmae.checkpoint import save_export
from hicmae.config import InputSpec, ModelConfig
from hicmae.data.labels import LabelSpec
from hicmae.data.source import ClipSource, ManifestSource, SubsetSource
from hicmae.predictions import ClipOutputs
from hicmae.pretraining import HiCMAE
from hicmae.probe_history import PROBE_ABOUT, PROBE_TABLE, ProbeHistory, ProbeRow
from hicmae.recognition import EmotionRecognizer
from hicmae.training.run_record import RUN_RECORD
from tests.corpus import EMOTIONS
from tests.tiny_model import shake

CONFIG = ModelConfig.preset(
    "micro", image_size=32, width=32, heads=2, depth=2, fusion_depth=1, decoder_width=16, decoder_heads=2,
    decoder_depth=3, taps=(0, 1), audio_patch_size=32,
)  # fmt: skip
SPEC = InputSpec.for_model(CONFIG)
LABELS = LabelSpec(classes={"emotion": EMOTIONS}, dimensions={"valence": (0, 1)})
PROVENANCE = {"steps": 12, "epochs": 2, "device": "cpu", "processes": 1, "precision": "32-true", "hicmae": "0.1.0",
              "torch": "2.11", "revision": "abc1234", "date": "2026-01-31"}  # fmt: skip


def write_history(root: Path, lines: list[dict[str, float]], *, version: int = 0) -> None:
    """``logs/version_N/metrics.csv``."""
    folder = root / "logs" / f"version_{version}"
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(lines).to_csv(folder / "metrics.csv", index=False)


def training_lines(count: int = 12, **more: float) -> list[dict[str, float]]:
    """What the monitor logs; the loss at step n is 2 - n / 10."""
    return [
        {"step": n, "train/loss": 2 - n / 10, "lr": 1e-3, "grad_norm": 0.5, "clips_per_s": 100 + n,
         "data_wait_percent": 1.5, "queue_depth": 2.0, "skipped_clips": 0, "epoch": n / 6} | more
        for n in range(1, count + 1)
    ]  # fmt: skip


def write_config(root: Path, model: dict[str, Any], data: dict[str, Any]) -> None:
    """``logs/version_0/config.yaml``."""
    path = root / "logs" / "version_0" / "config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"seed_everything": 0, "model": model, "data": data}))


def write_record(root: Path, **values: Any) -> None:
    """``run.json``."""
    content = {"state": "finished", "reason": "", "changed": "2026-01-31T10:20:30+00:00", "steps": 12,
               "started": "2026-01-31T09:00:00+00:00", "steps_planned": 12}  # fmt: skip
    (root / RUN_RECORD).write_text(json.dumps(content | values))


def write_probes(root: Path) -> None:
    """``probes.csv`` and ``probes.json``: video rises from 0.3 to 0.6 over two epochs, audio stays."""
    history = ProbeHistory(root / PROBE_TABLE, step=0)
    for step, video in ((0, 0.3), (6, 0.4), (12, 0.6)):
        values = [("video_layer1", "knn_uar_emotion", video), ("video_layer2", "knn_uar_emotion", 0.1),
                  ("audio_layer1", "knn_uar_emotion", 0.35), ("layer2", "alignment", 0.9), ("run", "seconds", 1.0),
                  ("video_layer2", "effective_rank", 4.0)]  # fmt: skip
        history.add(
            [ProbeRow(epoch=step / 6, step=step, part=p, metric=m, value=v, chance=1 / 3) for p, m, v in values]
        )
    about = {"clips": {"fit": 8, "queries": 4}, "divided": "split train, by speakers",
             "also_in_pretraining": {"clips": [], "subjects": ["s1"]}}  # fmt: skip
    (root / PROBE_ABOUT).write_text(json.dumps(about))


def make_pretrain_run(root: Path, shards: Path) -> Path:
    """A finished pre-training of random weights."""
    torch.manual_seed(0)
    model = HiCMAE(CONFIG, spec=SPEC)
    shake(model)
    write_config(
        root,
        {"preset": "micro", "architecture": {"width": 32}, "objective": {"frame_difference": True}},
        {"shards": [str(shards)], "val_shards": None, "seed": 3, "video_mask_ratio": 0.75, "audio_mask_ratio": 0.5},
    )
    totals = {"data_total/clips": 48, "data_total/video_hours": 0.25, "data_total/audio_hours": 0.3,
              "data_total/read_gb": 0.007, "data_total/skipped": 3, "data_total/skipped_truncated": 3}  # fmt: skip
    write_history(root, [*training_lines(), {"step": 12} | totals])
    write_probes(root)
    checkpoint = {
        "hicmae": {"job": "pretrain", "model": CONFIG.to_dict(), "input": SPEC.to_dict()},
        "state_dict": {f"model.{name}": value for name, value in model.state_dict().items()},
        "global_step": 12,
    }
    (root / "checkpoints").mkdir()
    torch.save(checkpoint, root / "checkpoints" / "last.ckpt")
    about = {"job": "pretrain", "data": {"name": "shards", "clips": 12}} | PROVENANCE
    save_export(root / "export", model.backbone, spec=SPEC, provenance=about)
    write_record(root)
    return root


def make_finetune_run(root: Path, manifest: Path, *, label: str = "", test: list[int] | None = None) -> Path:
    """A finished fine-tuning of random weights, whose made-up outputs are right for three of five clips."""
    torch.manual_seed(0)
    source = ManifestSource(manifest)
    numbers = test or [i for i in range(len(source)) if source.info(i).split == "test"]
    chosen = SubsetSource(source, numbers, "test")
    evaluation = evaluate(_outputs(chosen), chosen, LABELS, ("video", "audio"))
    scores = evaluation.to_dict() | {"intervals": evaluation.intervals().to_dict()}
    about = {
        "selected_on": "val/uar (highest)", "validation": "carved from the training speakers",
        "splits": {"train": {"clips": 9, "subjects": 3}, "test": {"clips": len(chosen), "subjects": 1}},
        "protocol": label, "benchmark": None, "data": str(manifest), "test_fold": None, "other_classes_left_out": {},
        "init": "random weights", "modalities": ["video", "audio"], "columns": ["emotion"],
        "classes": list(EMOTIONS), "dimensions": ["valence"], "segments": {"val": 1, "test": 2}, "test_without": None,
        "seed": 0,
    }  # fmt: skip
    root.mkdir(parents=True)
    best = {"path": "checkpoints/best.ckpt", "step": 10, "test": scores}
    (root / "metrics.json").write_text(json.dumps({"about": about, "best": best}))
    table = evaluation.table.assign(checkpoint="best", split="test", protocol=label)
    table.to_parquet(root / "predictions.parquet", index=False)
    write_config(root, {"modalities": ["video", "audio"], "labels": LABELS.to_dict()}, {"manifest": str(manifest)})
    write_history(root, [*training_lines(), {"step": 12, "val/uar": 0.4, "val/ccc": 0.1}])
    model = EmotionRecognizer(Backbone(CONFIG), evaluation_targets())
    save_export(root / "export", model, spec=SPEC, provenance={"job": "finetune"} | PROVENANCE)
    return root


def evaluation_targets() -> Any:
    """What such a run predicts."""
    from finetune.evaluation import targets_of

    return targets_of(LABELS)


def _outputs(source: ClipSource) -> ClipOutputs:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(len(source)):
        labels = source.info(number).labels
        true = EMOTIONS.index(str(labels["emotion"]))
        called = (true + 1) % 3 if number % 5 in (0, 4) else true
        probabilities = np.full(3, 0.1)
        probabilities[called] = 0.3 + number / 20
        rows.append([*(probabilities / probabilities.sum()), float(labels["valence"]) + rng.normal() / 10, 1, 1])
    count = len(source)
    return ClipOutputs(index=np.arange(count), outputs=np.array(rows), segments=np.full(count, 2))
