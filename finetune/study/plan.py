"""From a study's file to its rows and runs; every variant's settings are read by the jobs' own command lines first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from finetune.data import open_source
from finetune.settings import content_of
from finetune.start import choose_start
from finetune.study.grid import Link, Row, Run, corpus_run, shards_run
from finetune.study.options import flatten, nearest, read_yaml, refuse_unknown, with_options
from finetune.study.parsing import Parsed, job_parser
from finetune.study.spec import Finetuning, Pretraining, Study
from hicmae.backbone import MODALITIES
from hicmae.config import ModelConfig
from hicmae.data.cache_settings import CacheSettings
from hicmae.data.shard_source import ShardSource
from hicmae.data.splits import content_digest, folds_of
from hicmae.metrics import CATEGORICAL

_NOT_YET = "not-there-yet"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study amounts to."""

    study: Study
    rows: tuple[Row, ...]
    values: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """By axis, then variant: settings by dotted name, for the axis of a figure."""
    on_gpu: bool
    accelerator: str
    devices: Any
    """The most that one run takes, as ``trainer.devices``."""


@dataclass(frozen=True, kw_only=True)
class _Begin:
    """How fine-tunings of a pre-training variant begin."""

    settings: Mapping[str, Any]
    """Of the pre-training, nested; empty for a backbone that is there already."""
    model: Mapping[str, Any]
    """Settings of the fine-tuning, by dotted name."""
    modalities: tuple[str, ...] = MODALITIES
    """What was pre-trained."""
    parsed: Parsed | None = None
    """For one that is trained here."""
    content: str | None = None
    """Of a backbone that is there already."""


def plan_study(study: Study) -> Plan:
    """Read every variant and cross them.

    Raises:
        FileNotFoundError, ValueError: a file, an option, a checkpoint or a fold that is not there; names the variant.
    """
    return _Planner(study).plan()


class _Planner:
    def __init__(self, study: Study) -> None:
        self.study = study
        self.pretrain_base = with_options(read_yaml(study.pretrain_config), study.pretrain_set)
        self.finetune_base = read_yaml(study.finetune_config)
        self.shards = _synthetic_shards(study)
        self.parsers = {job: job_parser(job) for job in ("pretrain", "finetune")}
        self.sources: dict[str, tuple[dict[str, str], tuple[int, ...]]] = {}
        self.begins: dict[str, _Begin] = {}
        self.finetunings: dict[tuple[str, str], tuple[dict[str, Any], Parsed]] = {}
        self.runs: dict[str, Run] = {}

    def plan(self) -> Plan:
        study = self.study
        used = dict.fromkeys(pretraining for pretraining, _ in study.cells)
        self.begins = {name: self._begin(study.pretrainings[name]) for name in used}
        for pretraining, finetuning in study.cells:
            self._finetuning(pretraining, study.finetunings[finetuning])
        configs = [parsed.config for _, parsed in self.finetunings.values()]
        configs += [begin.parsed.config for begin in self.begins.values() if begin.parsed is not None]
        self.on_gpu = torch.cuda.is_available() and any(str(one.trainer.accelerator) != "cpu" for one in configs)
        rows = [
            Row(
                pretraining=pretraining, finetuning=finetuning, seed=seed, fold=fold,
                run=self._final_run(pretraining, study.finetunings[finetuning], seed, fold),
            )
            for pretraining, finetuning in study.cells
            for seed in study.seeds
            for fold in self._folds(pretraining, finetuning)
        ]  # fmt: skip
        values = {
            "pretraining": {
                name: {**(begin.parsed.values if begin.parsed else {}), **dict(flatten(begin.settings))}
                for name, begin in self.begins.items()
            },
            "finetuning": {
                name: {**parsed.values, **dict(flatten(found))}
                for (_, name), (found, parsed) in self.finetunings.items()
            },
        }
        _check_axis(study, values)
        accelerators = [str(one.trainer.accelerator) for one in configs]
        return Plan(
            study=study,
            rows=tuple(rows),
            values=values,
            on_gpu=self.on_gpu,
            accelerator=next((one for one in accelerators if one != "cpu"), "cpu"),
            devices=_most([one.trainer.devices for one in configs]),
        )

    # ------------------------------------------------------------ reading

    def _begin(self, variant: Pretraining) -> _Begin:
        what = f"{self.study.path}: pretraining variant {variant.name!r}"
        if variant.kind == "given":
            assert variant.init is not None
            try:
                content = content_of("init", variant.init)
                choose_start(variant.init, None, None)
            except (FileNotFoundError, ValueError) as error:
                raise type(error)(f"{what}: {error}; correct init, or leave the variant out") from error
            given = {"model.init": str(variant.init), "model.preset": None, "model.architecture": None}
            return _Begin(settings={}, model=given, content=content)
        settings = with_options(self.pretrain_base, variant.options)
        data = {"data.shards": [_NOT_YET]} if self.shards else {}
        if self.study.corpus.unlabelled is not None:
            data = {"data.shards": list(self.study.corpus.unlabelled)}
        settings = with_options(settings, data)
        parsed = self.parsers["pretrain"].parse(settings, dict(variant.options) | dict(self.study.pretrain_set), what)
        preset, architecture = parsed.config.model.preset, dict(parsed.config.model.architecture or {})
        _check_model(preset, architecture, what)
        if variant.kind == "random":
            own: dict[str, Any] = {
                "model.init": None, "model.preset": preset, "model.architecture": architecture or None,
            }  # fmt: skip
            return _Begin(settings=settings, model=own)
        if self.shards and "unlabelled" not in self.shards:
            raise ValueError(f"{what}: corpus.synthetic has no unlabelled_speakers to pre-train on")
        own = {"model.init": _NOT_YET, "model.preset": None, "model.architecture": None}
        return _Begin(settings=settings, model=own, modalities=tuple(parsed.config.model.modalities), parsed=parsed)

    def _finetuning(self, pretraining: str, variant: Finetuning) -> tuple[dict[str, Any], Parsed]:
        """Settings of a fine-tuning, nested and as understood; read once a pair of variants."""
        key = pretraining, variant.name
        if key not in self.finetunings:
            study, corpus = self.study, self.study.corpus
            what = f"{study.path}: finetuning variant {variant.name!r} of {pretraining!r}"
            options = variant.options
            if variant.of is not None:
                options = dict(study.finetunings[variant.of].options) | dict(options)
            settings = with_options(self.finetune_base, self.begins[pretraining].model)
            settings = with_options(settings, {"wandb": settings.get("wandb", "off")} | dict(study.finetune_set))
            settings = with_options(settings, options)
            if self.shards:
                settings = with_options(settings, {"data.shards": [_NOT_YET], "data.manifest": None})
            elif isinstance(corpus.labelled, str):
                settings = with_options(settings, {"data.shards": None, "data.manifest": corpus.labelled})
            elif corpus.labelled is not None:
                settings = with_options(settings, {"data.shards": list(corpus.labelled), "data.manifest": None})
            parsed = self.parsers["finetune"].parse(settings, dict(study.finetune_set) | dict(options), what)
            architecture = parsed.config.model.architecture or {}
            if self.begins[pretraining].model["model.init"] is None:
                _check_model(parsed.config.model.preset, architecture, what)
            refuse_unknown(architecture, [one.name for one in fields(ModelConfig)], f"{what}, model.architecture")
            learnt = self.begins[pretraining].modalities
            if missing := [name for name in parsed.config.model.modalities if name not in learnt]:
                raise ValueError(
                    f"{what}: the pre-training is of {' and '.join(learnt)} alone, and knows nothing of "
                    f"{' and '.join(missing)}; choose the pairs that go together with runs"
                )
            labels = parsed.config.model.labels
            for metric in study.metrics:
                group = "classes" if metric in CATEGORICAL else "dimensions"
                if not getattr(labels, group):
                    raise ValueError(f"{what}: model.labels has no {group}, and metrics asks for {metric}")
            if not parsed.config.test_after_fit:
                raise ValueError(f"{what}: test_after_fit=false leaves a run without test scores; leave it out")
            self.finetunings[key] = settings, parsed
        return self.finetunings[key]

    def _folds(self, pretraining: str, finetuning: str) -> Sequence[int | None]:
        _, parsed = self._finetuning(pretraining, self.study.finetunings[finetuning])
        asked = self.study.folds
        if self.shards:
            if asked is not None:
                raise ValueError(f"{self.study.path}: folds: the synthetic corpus has one fixed division; leave it out")
            return [None]
        _, every = self._labelled(parsed)
        if asked is None:
            if every and parsed.config.data.test_fold is None:
                raise ValueError(f"{self.study.path}: the corpus has {len(every)} folds; give folds: all, or some")
            return [parsed.config.data.test_fold]
        if not every:
            raise ValueError(f"{self.study.path}: folds: the corpus has one fixed division; leave it out")
        if asked == "all":
            return every
        if missing := sorted(set(asked) - set(every)):
            raise ValueError(f"{self.study.path}: there is no fold {missing[0]}; folds are {list(every)}")
        return asked

    def _labelled(self, parsed: Parsed) -> tuple[dict[str, str], tuple[int, ...]]:
        """Names for the content of the labelled clips, and their folds."""
        data = parsed.config.data
        key = str((data.shards, data.manifest))
        if key not in self.sources:
            if not data.shards and not data.manifest:
                raise ValueError(f"{self.study.path}: there are no labelled clips; give corpus.labelled or .synthetic")
            source = open_source(data.shards, data.manifest, CacheSettings.of(data.cache_dir, data.cache_gb))
            found = {"content": content_digest(source), "media": source.media_digest}
            self.sources[key] = found, folds_of(source)
        return self.sources[key]

    # ------------------------------------------------------------ runs

    def _pretrain_run(self, name: str, seed: int) -> Run | None:
        begin = self.begins[name]
        if begin.parsed is None:
            return None
        identity: dict[str, Any] = {"settings": _seeded(begin.parsed.material, seed)} | self._device()
        links: dict[str, Link | tuple[Link, ...]] = {}
        if self.shards:
            links["data.shards"] = (Link(run=self.shards["unlabelled"], path="shards"),)
        else:
            data = begin.parsed.config.data
            cache = CacheSettings.of(data.cache_dir, data.cache_gb)
            identity["clips"] = ShardSource([str(one) for one in data.shards], cache).fingerprint
        return self._same(Run(
            kind="pretrain", title=f"{name}, seed {seed}", identity=identity, links=links,
            settings=with_options(begin.settings, {"wandb": begin.settings.get("wandb", "off")} | _seeds(seed)),
        ))  # fmt: skip

    def _final_run(self, pretraining: str, variant: Finetuning, seed: int, fold: int | None) -> Run:
        settings, parsed = self._finetuning(pretraining, variant)
        begin = self.begins[pretraining]
        material = _seeded(parsed.material, seed) | {"data.test_fold": fold}
        identity: dict[str, Any] = {"settings": material} | self._device()
        links: dict[str, Link | tuple[Link, ...]] = {}
        if self.shards:
            links["data.shards"] = tuple(
                Link(run=run, path="shards") for split, run in self.shards.items() if split != "unlabelled"
            )
        else:
            identity["clips"] = self._labelled(parsed)[0]
        if parsed.config.model.teacher is not None:
            identity["teacher"] = content_of("teacher", parsed.config.model.teacher)
        own: dict[str, Any] = _seeds(seed) | {"data.test_fold": fold}
        if variant.of is not None:
            tested = self._final_run(pretraining, self.study.finetunings[variant.of], seed, fold)
            links["model.init"] = Link(run=tested, path="export")
            own |= {"model.preset": None, "model.architecture": None}
        elif begin.content is not None:
            identity["init"] = begin.content
        elif (start := self._pretrain_run(pretraining, seed)) is not None:
            links["model.init"] = Link(run=start, path="export")
        title = f"{pretraining}, {variant.name}, seed {seed}" + ("" if fold is None else f", fold {fold}")
        run = Run(
            kind=_KINDS[variant.job], title=title, identity=identity, links=links, settings=with_options(settings, own)
        )
        return self._same(run)

    def _same(self, run: Run) -> Run:
        """The run of the same result that is planned already, or this one."""
        return self.runs.setdefault(run.digest, run)

    def _device(self) -> dict[str, Any]:
        """Sums are rounded differently on another kind of device, and by another number of threads."""
        return {"device": "gpu"} if self.on_gpu else {"device": "cpu", "threads": self.study.threads}


_KINDS: Mapping[str, Any] = {"fit": "finetune", "probe": "probe", "test": "test"}


def _synthetic_shards(study: Study) -> dict[str, Run]:
    """Runs that pack the splits of the synthetic corpus; none where there is none."""
    sizes = study.corpus.synthetic
    if sizes is None:
        return {}
    if not sizes.test_speakers:
        raise ValueError(f"{study.path}: corpus.synthetic has no test_speakers: there would be no scores")
    there = {
        "unlabelled": sizes.unlabelled_speakers, "train": 1, "val": sizes.val_speakers, "test": sizes.test_speakers,
    }  # fmt: skip
    corpus = corpus_run(sizes)
    return {
        split: shards_run(corpus, split, study.corpus.storage, study.corpus.shard_mb)
        for split, count in there.items()
        if count
    }


def _check_model(preset: str | None, architecture: Mapping[str, Any], what: str) -> None:
    refuse_unknown(architecture, [one.name for one in fields(ModelConfig)], f"{what}, model.architecture")
    try:
        ModelConfig.preset(preset or "base", **architecture)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def _check_axis(study: Study, values: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Refuse lines over what no variant has a number for."""
    if study.figure.kind != "lines":
        return
    axis, option = str(study.figure.x).split(".", 1)
    known = {name for one in values[axis].values() for name in one}
    if not any(is_number(one.get(option)) for one in values[axis].values()):
        what = "no number in any variant" if option in known else f"no option of {axis}{nearest(option, known)}"
        raise ValueError(f"{study.path}: figure.x: {option} is {what}")
    if study.figure.log and (
        low := [n for n, one in values[axis].items() if is_number(one.get(option)) and one[option] <= 0]
    ):
        raise ValueError(
            f"{study.path}: figure.log: {option} is {values[axis][low[0]][option]} in {low[0]!r}, which a logarithmic "
            "axis has no place for; set log: false"
        )


def is_number(value: Any) -> bool:
    """Whether a value has a place on an axis."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _seeds(seed: int) -> dict[str, Any]:
    return {"seed_everything": seed, "data.seed": seed}


def _seeded(material: Mapping[str, Any], seed: int) -> dict[str, Any]:
    return dict(material) | _seeds(seed)


def _most(devices: Sequence[Any]) -> Any:
    """The largest number of devices; what is no number is for all runs."""
    texts = [str(one) for one in devices]
    return max(map(int, texts)) if all(text.isdecimal() for text in texts) else devices[0]
