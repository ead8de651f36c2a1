"""While a pre-training runs: what are its features worth by now, on a few labelled clips?"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from hicmae.backbone import Backbone
from hicmae.data.labels import LabelSpec
from hicmae.data.shard_source import ShardSource
from hicmae.data.source import ClipSource, ManifestSource
from hicmae.feature_parts import named_features, with_joint_parts
from hicmae.figures.probes import draw_probes
from hicmae.pretraining import HiCMAE
from hicmae.probe_history import PROBE_ABOUT, PROBE_TABLE, RUN, ProbeHistory, ProbeRow
from hicmae.training.aside import aside
from hicmae.training.run_directory import run_directory
from hicmae.training.sharding import whole_model
from hicmae.training.status import StepStatus
from pretrain.module import PretrainModule
from pretrain.probe_clips import (
    Overlap,
    ProbeChoice,
    ProbeClips,
    choose_probe_clips,
    decode_probe_clips,
    find_overlap,
    warn_of_overlap,
)
from pretrain.probe_scores import Array, Value, score_attention, score_parts
from pretrain.probe_words import collapse_warning, collapsed, logged, sentence, stillness_warning

logger = logging.getLogger(__name__)

_SEED = 0
"""Of the choice of clips: runs of different seeds are to be compared."""


class OnlineProbes(Callback):
    """Probes the features after epochs, and once before the first step, whose random weights are the baseline.

    With labelled clips (docs/probes.md) it writes probes.csv, probes.json and figures/probes.png, and logs probe/*.
    The training is not touched: its losses are those of a run without.

    Args:
        shards: folders of labelled clips, made by ``hicmae shards write``, or their URLs; empty: no probes.
        manifest: instead of shards, a manifest whose files are read as they are.
        labels: what is probed, as in fine-tuning: label columns with their classes, or with their ranges.
        every_n_epochs: epochs from one probe to the next.
        max_clips: labelled clips taken, half to fit probes to and half that ask; they stay in memory, decoded.
        max_share: share of the run's time that probes may have taken so far; above it they are put off to a later
            epoch, but for those before the first step and after the last.
    """

    def __init__(
        self,
        shards: list[str] | None = None,
        manifest: Path | None = None,
        labels: LabelSpec | None = None,
        every_n_epochs: int = 1,
        max_clips: int = 256,
        max_share: float = 0.02,
    ) -> None:
        if shards and manifest:
            raise ValueError("give the labelled clips of probes either as probe.shards or as probe.manifest, not both")
        if (shards or manifest) and labels is None:
            raise ValueError(
                "probe.shards or probe.manifest is given, but no probe.labels: say which label columns are probed, "
                "e.g. --probe.labels.classes '{emotion: [angry, happy, sad]}'"
            )
        if labels is not None and not (shards or manifest):
            logger.warning("probe.labels is given, but neither probe.shards nor probe.manifest: there are no probes")
        if every_n_epochs < 1:
            raise ValueError(f"probe.every_n_epochs={every_n_epochs} must be 1 or more")
        if max_clips < 8:
            raise ValueError(f"probe.max_clips={max_clips} must be 8 or more; below that a probe tells nothing")
        if not 0 <= max_share <= 1:
            raise ValueError(f"probe.max_share={max_share} must lie between 0 and 1, e.g. 0.02")
        self.shards = shards
        self.manifest = manifest
        self.labels = labels
        self.every_n_epochs = every_n_epochs
        self.max_clips = max_clips
        self.max_share = max_share
        self._choice: ProbeChoice | None = None
        self._clips: ProbeClips | None = None
        self._history: ProbeHistory | None = None
        self._started = self._spent = 0.0
        self._put_off = 0
        self._warned: set[str] = set()

    # ------------------------------------------------------------ before training

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the clips and check their labels, on every rank, before anything takes time.

        Raises:
            ValueError, FileNotFoundError: no such clips, or none that can be probed.
        """
        if stage != "fit" or not (self.shards or self.manifest) or self._choice is not None:
            return
        assert self.labels is not None
        try:
            self._choice = choose_probe_clips(self._source(trainer), self.labels, max_clips=self.max_clips, seed=_SEED)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"clips of the probes: {error}") from error
        except ValueError as error:
            raise ValueError(f"clips of the probes: {error}") from error

    def _source(self, trainer: Trainer) -> ClipSource:
        if self.shards:
            return ShardSource(list(self.shards), trainer.datamodule.cache)  # type: ignore[attr-defined]
        assert self.manifest is not None
        return ManifestSource(self.manifest)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse other clips than those that a run was begun with; only now it is known whether it goes on.

        Raises:
            ValueError: the clips, their labels or what they are for differ.
        """
        if self._choice is None or trainer.ckpt_path is None:
            return
        about = run_directory(trainer) / PROBE_ABOUT
        try:
            before = json.loads(about.read_text("utf-8"))["digest"]
        except (OSError, ValueError, KeyError, TypeError):  # probed from now on
            return
        if before != self._choice.digest:
            raise ValueError(
                f"{about}: the run was begun with other clips or labels of its probes than probe.* name now, and their "
                f"values cannot be compared; name the same ones, or move {PROBE_ABOUT} and {PROBE_TABLE} away"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started, self._spent, self._put_off = time.perf_counter(), 0.0, 0
        if self._choice is None:
            return
        root = run_directory(trainer)
        if trainer.is_global_zero:
            self._history = ProbeHistory(root / PROBE_TABLE, step=trainer.global_step)
            overlap = find_overlap(self._choice, trainer.datamodule.source)  # type: ignore[attr-defined]
            self._write_about(root / PROBE_ABOUT, self._choice, overlap)
            warn_of_overlap(overlap, self._choice, PROBE_ABOUT)
            counts = self._choice.summary()["clips"]
            logger.info("probes: %d clips to fit, %d that ask, of %s, divided by %s", counts["fit"], counts["queries"],
                        self._choice.source.name, self._choice.said)  # fmt: skip
            if trainer.global_step and not self._history.baseline:
                logger.warning("probes begin at step %d: those of the random weights, to compare with, are not there",
                               trainer.global_step)  # fmt: skip
            self._decode(pl_module)
        if not trainer.global_step:
            self._probe(trainer, pl_module, epoch=0.0)

    def _decode(self, pl_module: LightningModule) -> None:
        """Now, also where the first probe is epochs away: clips that cannot be used end the job before it trains."""
        assert isinstance(pl_module, PretrainModule)
        assert self._choice is not None
        assert self.labels is not None
        started = time.perf_counter()
        with aside(pl_module, pl_module.device):
            self._clips = decode_probe_clips(self._choice, pl_module.spec, self.labels, pl_module.modalities)
        self._spent += time.perf_counter() - started

    def _write_about(self, path: Path, choice: ProbeChoice, overlap: Overlap) -> None:
        assert self.labels is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        content = choice.summary() | {"labels": self.labels.to_dict(), "also_in_pretraining": asdict(overlap)}
        draft = path.with_name(f".{path.name}.draft")
        draft.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        draft.replace(path)

    # ------------------------------------------------------------ when

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._choice is None:
            return
        batches = trainer.fit_loop.epoch_loop.batch_idx + 1
        epoch = trainer.current_epoch + min(1.0, batches / max(1, trainer.num_training_batches))
        # Rank 0 has the history and the clock.
        if trainer.strategy.broadcast(self._is_due(trainer, epoch)):
            self._probe(trainer, pl_module, epoch=epoch)

    def _is_due(self, trainer: Trainer, epoch: float) -> bool:
        if self._history is None or trainer.global_step in self._history.steps:
            return False  # probed before the interruption that this run goes on from
        if any(c.stop_agreed for c in trainer.callbacks if isinstance(c, StepStatus)):  # type: ignore[attr-defined]
            return False  # whoever asked for it does not wait long
        if _is_last(trainer):
            return True
        if epoch - self._history.last_epoch < self.every_n_epochs:
            return False
        share = self.time_share
        if share <= self.max_share:
            self._put_off = 0
            return True
        self._put_off += 1
        if self._put_off & (self._put_off - 1) == 0:  # 1, 2, 4, 8, ...
            logger.info(
                "probes put off after epoch %g (%d in a row): they have taken %.1f%% of the time, and probe.max_share "
                "allows for %.1f%%", epoch, self._put_off, 100 * share, 100 * self.max_share,
            )  # fmt: skip
        return False

    @property
    def time_share(self) -> float:
        """Share of the time since this process began to train that its probes took."""
        return self._spent / max(time.perf_counter() - self._started, 1e-9)

    # ------------------------------------------------------------ what

    def _probe(self, trainer: Trainer, pl_module: LightningModule, *, epoch: float) -> None:
        """Probe on rank 0; the others wait for it at the next step's exchange of gradients."""
        assert isinstance(pl_module, PretrainModule)
        started = time.perf_counter()
        with aside(pl_module, pl_module.device):
            model = whole_model(pl_module.model, keep=trainer.is_global_zero)  # with all ranks
            values = self._values(trainer, pl_module, model) if model is not None else []
        if not values:  # on another rank, or no feature is finite
            return
        assert self._history is not None
        assert self.labels is not None
        step = trainer.global_step
        rows = [ProbeRow(epoch=epoch, step=step, **asdict(value)) for value in values]
        self._history.add(rows)
        layers = _compared(pl_module)
        root = run_directory(trainer)
        draw_probes(self._history.rows, root / "figures" / "probes.png", self.labels, title=f"probes, {root.name}")
        logger.info(sentence(self._history, step, self.labels, layers))
        self._warn(rows, layers)
        self._spent += time.perf_counter() - started
        cost = {"time_share_percent": 100 * self.time_share, "seconds": time.perf_counter() - started}
        share = [ProbeRow(epoch=epoch, step=step, part=RUN, metric=name, value=value) for name, value in cost.items()]
        self._history.add(share)
        for sink in trainer.loggers:
            sink.log_metrics(dict(logged([*rows, *share])), step=step)

    def _values(self, trainer: Trainer, module: PretrainModule, model: HiCMAE) -> list[Value]:
        assert self._clips is not None
        assert self.labels is not None
        model.eval()
        backbone, clips = model.backbone, self._clips
        layers = _compared(module)
        with trainer.precision_plugin.forward_context():
            parts = self._features(module, backbone, clips)
            looks = list(score_attention(module, backbone, clips, layers))
        if broken := [name for name, features in parts.items() if not np.isfinite(features).all()]:
            logger.warning("features of %s are not finite and are not probed", ", ".join(broken))
        if len(broken) == len(parts):
            return []
        return looks + score_parts(
            {name: features for name, features in parts.items() if name not in broken},
            fit=clips.fit,
            targets=clips.targets,
            classes={name: len(names) for name, names in self.labels.classes.items()},
            layers=layers,
        )

    def _features(self, module: PretrainModule, backbone: Backbone, clips: ProbeClips) -> Mapping[str, Array]:
        """Parts of the features of the usable clips, by name; float64 (N, D) each."""
        collected: dict[str, list[torch.Tensor]] = {}
        for batch in clips.batches:
            video, log_mel = module.inputs(batch.to(module.device))
            seen = video if "video" in backbone.modalities else None
            heard = log_mel if "audio" in backbone.modalities else None
            for name, value in with_joint_parts(named_features(backbone(seen, heard), layers=True)).items():
                if name not in ("fused_video", "fused_audio"):
                    collected.setdefault(name, []).append(value.float())
        return {
            name: torch.cat(values).cpu().numpy().astype(np.float64)[clips.usable] for name, values in collected.items()
        }

    def _warn(self, rows: Sequence[ProbeRow], layers: Sequence[int]) -> None:
        """Say once of each part that it has collapsed, and once that nothing has moved."""
        assert self._history is not None
        assert self._clips is not None
        assert self.labels is not None
        if fresh := [row for row in collapsed(rows, layers) if row.part not in self._warned]:
            self._warned |= {row.part for row in fresh}
            logger.warning(collapse_warning(fresh, self._history.baseline))
        if "still" not in self._warned:
            said = stillness_warning(self._history, self.labels, int((~self._clips.fit).sum()))
            if said is not None:
                self._warned.add("still")
                logger.warning(said)


def _compared(module: PretrainModule) -> list[int]:
    """Layers at which the modalities are compared, 0-based: the tapped ones and the last."""
    return sorted({*module.config.taps, module.config.depth - 1})


def _is_last(trainer: Trainer) -> bool:
    """Whether the training ends with this epoch, as far as its limits say."""
    steps, epochs = trainer.max_steps, trainer.max_epochs
    return (
        trainer.should_stop
        or 0 <= steps <= trainer.global_step
        or (epochs is not None and 0 <= epochs <= trainer.current_epoch + 1)
    )
