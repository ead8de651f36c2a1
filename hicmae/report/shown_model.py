"""The model that a picture is of, and the clips that it is shown: a run, an exported folder, or a checkpoint."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hicmae.data.order import generator
from hicmae.data.source import ClipSource
from hicmae.export_folder import CONFIG
from hicmae.report.clip_choice import open_data
from hicmae.report.clip_features import LoadedBackbone, load_backbone_of, loaded_backbone
from hicmae.report.material import Material, ReportSettings
from hicmae.report.reconstructions import load_pretraining_of
from hicmae.report.run import Run, open_run

if TYPE_CHECKING:
    from hicmae.config import InputSpec
    from hicmae.pretraining import HiCMAE


@dataclass(frozen=True, kw_only=True)
class ShownModel:
    """Where a model is."""

    given: Path
    """What the user named."""
    run: Run
    """The run that it is of; one without any files where it is of none that is known."""
    weights: Path | None
    """The exported folder or the file; ``None``: what the run holds."""

    @property
    def name(self) -> str:
        """In words, for a title: the last parts of the path that say more than ``export`` or ``last.ckpt``."""
        parts = [part for part in self.given.absolute().parts if part not in ("checkpoints", "export", "exported")]
        return "/".join(parts[-2:] if self.given.is_file() else parts[-1:])

    def backbone(self) -> LoadedBackbone:
        """The model without decoders or head.

        Raises:
            NotAvailableError, ValueError, OSError: it cannot be read.
        """
        if self.weights is None:
            return load_backbone_of(self.run)
        from hicmae.checkpoint import read_backbone

        weights = read_backbone(self.weights)
        return loaded_backbone(weights, weights.modalities, str(self.given))

    def pretraining(self) -> tuple[HiCMAE, InputSpec, int | None]:
        """The model with its decoders, its input, and the steps behind it where they are known.

        Raises:
            NotAvailableError, ValueError, OSError: it has no decoders, or cannot be read.
        """
        if self.weights is None:
            if self.run.kind != "pretrain":
                raise ValueError(f"{self.given} is a run of fine-tuning, which leaves the decoders out; {_REMEDY}")
            return load_pretraining_of(self.run)
        from hicmae.checkpoint import read_backbone, read_pretraining, read_provenance

        if self.weights.is_dir():
            from hicmae.checkpoint import read_export

            if read_export(self.weights).objective is None:
                raise ValueError(f"{self.given} holds no decoders, which exports leave out unless asked; {_REMEDY}")
        model = read_pretraining(self.weights)
        if model is None:
            raise ValueError(f"{self.given} holds no decoders: it is of fine-tuning; {_REMEDY}")
        steps = read_provenance(self.weights).get("steps")
        return model, read_backbone(self.weights).spec, steps if isinstance(steps, int) else None


_REMEDY = "give a run of pre-training, its checkpoints/last.ckpt, or hicmae export RUN/checkpoints/last.ckpt OUT "
_REMEDY += "--with-decoder"


@dataclass(frozen=True, kw_only=True)
class ShownClips:
    """Some clips of a source."""

    source: ClipSource
    numbers: list[int]
    said: str
    """Which they are, in words."""


def find_model(path: str | Path) -> ShownModel:
    """What is at ``path``.

    Raises:
        FileNotFoundError: nothing.
        ValueError: a folder that is neither a run nor an export, or a cross-validation.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"nothing at {path}; give a run directory, an exported folder or a checkpoint")
    if path.is_dir() and not (path / CONFIG).is_file():
        run = open_run(path)
        if run.kind == "folds":
            raise ValueError(f"{path} is a cross-validation of several models; give one of its folds, such as fold1")
        return ShownModel(given=path, run=run, weights=None)
    # RUN/export and RUN/checkpoints/last.ckpt know where the run's data are.
    place = path.absolute().parent.parent if path.is_file() else path.absolute().parent
    try:
        run = open_run(place)
    except (ValueError, OSError):
        run = Run(root=path, kind="pretrain")
    return ShownModel(given=path, run=run, weights=path)


def find_clips(
    model: ShownModel, *, data: Sequence[str], split: str | None, limit: int, clip: str | None = None
) -> ShownClips:
    """Clips to look at, always the same ones.

    Args:
        model: whose run may say where the data are.
        data: a manifest or shard folders to take instead.
        split: of these clips alone.
        limit: so many at most.
        clip: this one.

    Raises:
        NotAvailableError: the data cannot be opened.
        ValueError: no such clip or split; the nearest or all are named.
    """
    if not data and split is None and clip is None:
        material = Material(run=model.run, settings=ReportSettings(clips=limit))
        choice = material.choice
        return ShownClips(source=material.source, numbers=choice.numbers, said=choice.said)
    source = open_data(model.run, data)
    names = [source.info(number).clip_id for number in range(len(source))]
    if clip is not None:
        if clip not in names:
            near = difflib.get_close_matches(clip, names, 3, cutoff=0.4)
            hint = f"; did you mean {', '.join(near)}?" if near else f"; the first one is {names[0]}" if names else ""
            raise ValueError(f"--clip {clip}: {source.name} has {len(names)} clips, and none of that name{hint}")
        return ShownClips(source=source, numbers=[names.index(clip)], said=f"clip {clip}")
    there = list(range(len(source)))
    if split is not None:
        splits = {source.info(number).split for number in there}
        there = [number for number in there if source.info(number).split == split]
        if not there:
            known = ", ".join(sorted(splits - {""})) or "none"
            raise ValueError(f"--split {split}: {source.name} has no such clips; its splits are: {known}")
    chosen = sorted(there[i] for i in generator("report").permutation(len(there))[:limit])
    part = f" of split {split}" if split is not None else ""
    return ShownClips(source=source, numbers=chosen, said=f"{len(chosen)} of {len(there)} clips{part}")
