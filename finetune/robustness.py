"""How scores fall as picture and sound get worse: ``python -m finetune robustness --config RUN/config.yaml
--model.init RUN/export``.

The test is run once on the clips as they are and once for every corruption and level, by the very code of ``test``;
with ``--overlay NAME=FOLDER ...`` the results of several models are put side by side.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import LightningArgumentParser

import hicmae
from finetune.__main__ import FinetuneCLI
from finetune.evaluation import Evaluation
from finetune.module import FinetuneModule
from finetune.origin import origin_of
from finetune.protocol import labelled
from finetune.robustness_data import Condition, RobustnessData, changed_media, media_of
from finetune.robustness_overlay import is_overlay, overlay
from finetune.robustness_report import Measured, scores_of
from hicmae.corruptions import CORRUPTIONS, Corruption, Media, corruption
from hicmae.data.splits import TEST
from hicmae.figures.corruption_sheet import draw_corruption_sheet
from hicmae.media.yuv import to_rgb
from hicmae.training.cli import run_job
from hicmae.training.provenance import weights_origin

logger = logging.getLogger(__name__)

FOLDER = "robustness"
SHEET = "figures/corruptions.png"


@dataclass(frozen=True, kw_only=True)
class RobustnessSettings:
    """What is done to the test clips.

    Raises:
        ValueError: an unknown corruption, or a level that it cannot have.
    """

    corruptions: list[str] | None = None
    """Which corruptions, by name (docs/robustness.md); empty: all that the model's modalities allow."""
    levels: dict[str, list[float]] | None = None
    """Other levels than the usual ones, by corruption: ``{noise: [20, 0], blur: [4]}``."""
    seed: int = 0
    """Of the noise, the boxes and all else that is random."""
    sheet: bool = True
    """Draw a clip at every level too: figures/corruptions.png."""
    memory_gb: float = 2.0
    """Decoded test clips are kept in memory up to this size, in 10^9 bytes; larger tests are decoded for each level."""

    def __post_init__(self) -> None:
        names = [corruption(name).name for name in self.corruptions or ()]
        for name, levels in (self.levels or {}).items():
            for level in levels:
                corruption(name).check(level)
            if names and name not in names:
                raise ValueError(
                    f"robustness.levels has {name}, which is not among robustness.corruptions ({', '.join(names)}); "
                    "add it there, or leave it out here"
                )

    def chosen(self) -> dict[Corruption, list[float]]:
        """Levels by corruption, without the clean one, from mild to severe."""
        found = {}
        for kind in map(corruption, self.corruptions or CORRUPTIONS):
            levels = (self.levels or {}).get(kind.name, list(kind.levels))
            found[kind] = [level for level in kind.ordered(levels) if level != kind.clean]
        return found


class RobustnessCLI(FinetuneCLI):
    """The settings of ``test``, and ``--robustness.*``."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_class_arguments(RobustnessSettings, "robustness")

    def _run_subcommand(self, subcommand: str) -> None:
        config, settings = self.config[subcommand], self.config_init[subcommand].robustness
        data: RobustnessData = self.datamodule
        module: FinetuneModule = self.model
        source = data.evaluation_source(TEST)  # says so at once where there is no test
        chosen, left_out = _split(settings, module, data)
        self.before_test()
        arguments = self._prepare_subcommand_kwargs(subcommand)
        checkpoint = arguments.get("ckpt_path")
        # Lightning hands a checkpoint's protocol to data of the class that wrote it alone.
        if checkpoint and (origin := origin_of(Path(checkpoint))) is not None:
            data.take_origin(origin, "the checkpoint")
        measured = Measured(
            settings=_settings(self.trainer, module, data, checkpoint=checkpoint, seed=settings.seed),
            about={
                "model": str(checkpoint or module.init or ""),
                "data": source.name,
                "modalities": list(module.modalities),
                "test_without": data.test_without,
                "protocol": data.protocol.label,
            },
            left_out=left_out,
        )
        out = Path(config.trainer.default_root_dir) / FOLDER
        out.mkdir(parents=True, exist_ok=True)
        measured.take_finished(out)
        data.keep_bytes = round(settings.memory_gb * 1e9)
        measure(self.trainer, module, data, chosen, measured, out=out, checkpoint=checkpoint, seed=settings.seed)
        if settings.sheet:
            draw_sheet(module, data, chosen, out / SHEET, seed=settings.seed)
        data.close()
        measured.write(out, classes=len(module.targets.classes))


def main(argv: Sequence[str]) -> int:
    """Run the job; returns the exit status."""
    if is_overlay(argv):
        return run_job("robustness", lambda: overlay(argv))
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")  # we mean it
    return run_job(
        "robustness",
        lambda: RobustnessCLI(
            FinetuneModule,
            RobustnessData,
            seed_everything_default=0,
            save_config_callback=None,
            # one device: batches are those of a test there
            args=["test", *argv, "--trainer.devices=1", "--trainer.strategy=auto", "--trainer.logger=false"],
        ),
    )


def measure(
    trainer: Any,
    module: FinetuneModule,
    data: RobustnessData,
    chosen: dict[Corruption, list[float]],
    measured: Measured,
    *,
    out: Path,
    checkpoint: str | None,
    seed: int,
) -> None:
    """Score what is not among ``measured`` yet; each result is in ``out`` before the next is begun."""
    loaded = False

    def score(condition: Condition | None, what: str) -> dict[str, Any]:
        nonlocal loaded
        data.condition = condition
        trainer.test(module, datamodule=data, ckpt_path=None if loaded else checkpoint, verbose=False)
        loaded = True
        evaluation: Evaluation = module.evaluations[TEST]
        shown = " ".join(f"{name} {value:.4f}" for name, value in list(evaluation.scalars.items())[:2])
        logger.info("%s | %s", labelled(what, measured.label), shown)
        return scores_of(evaluation)

    if measured.clean is None:
        measured.clean = score(None, "clean")
        measured.save(out)
    for kind, levels in chosen.items():
        finished = measured.levels.setdefault(kind.name, {})
        for level in levels:
            if level not in finished:
                condition = Condition(corruption=kind, level=level, seed=seed)
                finished[level] = score(condition, f"{kind.title}, {kind.shown(level)}")
                measured.save(out)
    measured.save(out)


def draw_sheet(
    module: FinetuneModule, data: RobustnessData, chosen: dict[Corruption, list[float]], path: Path, *, seed: int
) -> None:
    """Draw the first clip that has picture and sound at every level; none, if no clip of the first batch has both."""
    batch = next(iter(data.kept_batches()))
    both = (batch.valid & batch.has_video & batch.has_audio).nonzero().flatten().tolist()
    if not both:
        logger.warning("no clip of the first %d has picture and sound: %s is not drawn", len(batch), path.name)
        return
    row = both[0]
    if batch.pixels == "yuv420p":
        batch = batch.first(row + 1)
        batch.video = to_rgb(batch.video)
    rows = {}
    for kind, levels in chosen.items():
        conditions = [Condition(corruption=kind, level=level, seed=seed) for level in (kind.clean, *levels)]
        media = media_of(batch, row, data.sounds(), conditions[0])
        rows[kind] = [(one.level, changed_media(media, one, batch, row)) for one in conditions]
    draw_corruption_sheet(rows, path, log_mel=lambda media: _log_mel(module, media), title=batch.clip_ids[row])


def _log_mel(module: FinetuneModule, media: Media) -> Any:
    waveform = torch.from_numpy(media.waveform)[None].to(module.device)
    samples = torch.tensor([media.sound_samples], device=module.device)
    return module.transform.sound(waveform, sound_samples=samples)[0, 0].cpu().numpy()


def _split(
    settings: RobustnessSettings, module: FinetuneModule, data: RobustnessData
) -> tuple[dict[Corruption, list[float]], dict[str, str]]:
    """What is measured, and why the rest is not.

    Raises:
        ValueError: nothing is left.
    """
    chosen, left_out = settings.chosen(), dict[str, str]()
    for kind in list(chosen):
        for modality in kind.modalities:
            if modality not in module.modalities:
                left_out[kind.name] = f"the model takes no {modality}"
            elif modality == data.test_without:
                left_out[kind.name] = f"{modality} is withheld from the test (data.test_without)"
        if kind.name in left_out:
            del chosen[kind]
    for name, why in left_out.items():
        logger.log(logging.WARNING if settings.corruptions else logging.INFO, "%s is left out: %s", name, why)
    if not chosen:
        fitting = [kind.name for kind in CORRUPTIONS.values() if set(kind.modalities) <= set(module.modalities)]
        raise ValueError(
            f"none of robustness.corruptions can be measured: {'; '.join(f'{n}: {w}' for n, w in left_out.items())}. "
            f"Of a model of {' and '.join(module.modalities)}: {', '.join(fitting)}"
        )
    return chosen, left_out


def _settings(
    trainer: Any, module: FinetuneModule, data: RobustnessData, *, checkpoint: str | None, seed: int
) -> dict[str, Any]:
    """What the scores of a corruption at a level depend on."""
    weights = checkpoint or module.init
    return {
        "weights": None if weights is None else weights_origin(Path(weights))["sha256"],
        "data": data.protocol.content,
        "clips": data.evaluation_source(TEST).fingerprint,
        "test_fold": data.protocol.test_fold,
        "labels": module.labels.to_dict(),
        "modalities": list(module.modalities),
        "input": module.spec.to_dict(),
        "segments": data.segments[TEST],
        "test_without": data.test_without,
        "average_over": data.average_over,
        "batch_size": data.batch_size,
        "precision": str(trainer.precision),
        "seed": seed,
        "version": hicmae.__version__,
    }
