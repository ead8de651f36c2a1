"""What a study's file says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from finetune.study.options import read_yaml, refuse_unknown
from hicmae.data.storage import StorageFormat
from hicmae.data.synthetic import CorpusSettings
from hicmae.metrics import CATEGORICAL, DIMENSIONAL

_KEYS = (
    "title", "note", "corpus", "seeds", "folds", "threads", "pretraining", "finetuning", "runs", "compare", "metrics",
    "figure",
)  # fmt: skip
_SHARD_KEYS = ("format", "audio", "size", "shard_mb")
_OURS = {"seed_everything", "data.seed", "data.test_fold", "trainer.default_root_dir", "ckpt_path", "config"}
"""What the study sets itself."""


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """A way to come to a backbone."""

    name: str
    kind: Literal["run", "random", "given"] = "run"
    """Trained here; random weights; or one that is there already."""
    init: Path | None = None
    """The one that is there."""
    options: Mapping[str, Any]
    """Settings of ``pretrain fit`` by dotted names."""


@dataclass(frozen=True, kw_only=True)
class Finetuning:
    """What is done with a backbone."""

    name: str
    job: Literal["fit", "probe", "test"] = "fit"
    of: str | None = None
    """The variant whose recogniser a further test takes."""
    feature: str | None = None
    """Of a probe: the part of the features; ``None``: the one that is best on validation."""
    method: str | None = None
    """Of a probe: knn or linear; ``None``: the better one on validation."""
    options: Mapping[str, Any]
    """Settings of ``finetune fit`` by dotted names."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Where clips come from; nothing given: from where the jobs' own files say."""

    synthetic: CorpusSettings | None = None
    storage: StorageFormat | None = None
    """How the synthetic clips are packed."""
    shard_mb: float = 4.0
    labelled: str | tuple[str, ...] | None = None
    """A manifest, or folders of shards."""
    unlabelled: tuple[str, ...] | None = None
    """Folders of shards."""


@dataclass(frozen=True, kw_only=True)
class FigureSpec:
    """The picture of a study."""

    kind: Literal["bars", "lines"] = "bars"
    x: str | None = None
    """Of lines: ``pretraining.OPTION`` or ``finetuning.OPTION``, whose values are on the axis."""
    log: bool = False
    """A logarithmic axis."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study's file."""

    path: Path
    title: str
    note: str
    corpus: Corpus
    seeds: tuple[int, ...]
    folds: tuple[int, ...] | Literal["all"] | None
    threads: int
    """Of each run on a processor."""
    pretrain_config: Path
    pretrain_set: Mapping[str, Any]
    pretrainings: Mapping[str, Pretraining]
    finetune_config: Path
    finetune_set: Mapping[str, Any]
    finetunings: Mapping[str, Finetuning]
    cells: tuple[tuple[str, str], ...]
    """Pairs of variants that are run."""
    reference: Mapping[str, str | None]
    """By axis (pretraining, finetuning): the variant that others are compared with."""
    metrics: tuple[str, ...]
    figure: FigureSpec


def read_study(path: Path) -> Study:
    """Read a study's file.

    Raises:
        FileNotFoundError, ValueError: no such file, or something in it that is not understood; names it, and what may
            have been meant.
    """
    given = read_yaml(path)
    refuse_unknown(given, _KEYS, str(path))
    where = f"{path}: "
    axes = {axis: _group(given, axis, ("config", "set", "variants"), where) for axis in ("pretraining", "finetuning")}
    for axis, group in axes.items():
        if "config" not in group:
            raise ValueError(f"{where}{axis} has no config: the arguments that all variants share, a YAML file")
        if not group.get("variants"):
            raise ValueError(f"{where}{axis} has no variants; give at least one, for instance {{paper: {{}}}}")
        _refuse_ours(group.get("set") or {}, f"{where}{axis}.set")
    pretrainings = {
        str(name): _pretraining(str(name), values, where) for name, values in axes["pretraining"]["variants"].items()
    }
    finetunings = {
        str(name): _finetuning(str(name), values, where) for name, values in axes["finetuning"]["variants"].items()
    }
    for one in finetunings.values():
        if one.of is not None:
            refuse_unknown([one.of], finetunings, f"{where}finetuning variant {one.name!r}, of")
            if finetunings[one.of].job != "fit":
                raise ValueError(f"{where}finetuning variant {one.name!r}: {one.of!r} leaves no recogniser to test")
    return Study(
        path=path,
        title=str(given.get("title", path.stem)),
        note=str(given.get("note", "")),
        corpus=_corpus(given.get("corpus") or {}, where),
        seeds=_numbers(given.get("seeds", [0]), f"{where}seeds", least=0),
        folds=_folds(given.get("folds"), where),
        threads=_whole(given.get("threads", 1), f"{where}threads"),
        pretrain_config=Path(axes["pretraining"]["config"]),
        pretrain_set=axes["pretraining"].get("set") or {},
        pretrainings=pretrainings,
        finetune_config=Path(axes["finetuning"]["config"]),
        finetune_set=axes["finetuning"].get("set") or {},
        finetunings=finetunings,
        cells=_cells(given.get("runs"), pretrainings, finetunings, where),
        reference=_reference(given, pretrainings, finetunings, where),
        metrics=_metrics(given.get("metrics", ["uar", "war"]), where),
        figure=_figure(given.get("figure") or {}, where),
    )


def _group(given: Mapping[str, Any], name: str, known: Sequence[str], where: str) -> dict[str, Any]:
    group = given.get(name)
    if not isinstance(group, dict):
        raise ValueError(f"{where}{name} is missing; it is a group with {', '.join(known)}")
    refuse_unknown(group, known, where + name)
    return group


def _refuse_ours(options: Mapping[str, Any], where: str, more: Sequence[str] = ()) -> None:
    for name in options:
        if name in _OURS or name in more:
            raise ValueError(f"{where}: {name} is set by the study itself, from seeds, folds, variants; leave it out")


def _pretraining(name: str, values: Any, where: str) -> Pretraining:
    where = f"{where}pretraining variant {name!r}"
    if values is None:
        return Pretraining(name=name, kind="random", options={})
    if not isinstance(values, dict):
        raise ValueError(f"{where} is {values!r}; give options, {{}} for none, or null for random weights")
    options = {option: value for option, value in values.items() if option != "init"}
    _refuse_ours(options, where)
    if "init" not in values:
        return Pretraining(name=name, options=options)
    if values["init"] is None:
        return Pretraining(name=name, kind="random", options=options)
    if options:
        raise ValueError(f"{where}: a backbone that is there already takes no options; leave out {', '.join(options)}")
    return Pretraining(name=name, kind="given", init=Path(values["init"]), options={})


def _finetuning(name: str, values: Any, where: str) -> Finetuning:
    where = f"{where}finetuning variant {name!r}"
    if not isinstance(values, dict):
        raise ValueError(f"{where} is {values!r}; give options, or {{}} for none")
    own = {key: values[key] for key in ("job", "test_only", "of", "feature", "method") if key in values}
    options = {option: value for option, value in values.items() if option not in own}
    _refuse_ours(options, where, ("model.init",))
    job: Any = "test" if own.get("test_only") else own.get("job", "fit")
    refuse_unknown([job], ("fit", "probe", "test"), f"{where}, job")
    if (job == "test") != ("of" in own):
        raise ValueError(f"{where}: test_only and of belong together: of names the variant whose recogniser is tested")
    if job != "probe" and (extra := [key for key in ("feature", "method") if key in own]):
        raise ValueError(f"{where}: {extra[0]} is of a probe; set job: probe, or leave it out")
    refuse_unknown([m for m in (own.get("method"),) if m is not None], ("knn", "linear"), f"{where}, method")
    return Finetuning(
        name=name, job=job, of=own.get("of"), feature=own.get("feature"), method=own.get("method"), options=options
    )


def _corpus(given: Any, where: str) -> Corpus:
    where = f"{where}corpus"
    if isinstance(given, str):  # a file that studies share
        where, given = given, read_yaml(Path(given))
    if not isinstance(given, dict):
        raise ValueError(f"{where} is {given!r}; give a group, or the path of a file that holds one")
    refuse_unknown(given, ("synthetic", "shards", "labelled", "unlabelled"), where)
    if "synthetic" not in given:
        if "shards" in given:
            raise ValueError(f"{where}.shards says how synthetic clips are packed; name others under unlabelled")
        labelled, unlabelled = given.get("labelled"), given.get("unlabelled")
        return Corpus(
            labelled=tuple(labelled) if isinstance(labelled, list) else labelled,
            unlabelled=None if unlabelled is None else tuple(unlabelled),
        )
    if others := [name for name in ("labelled", "unlabelled") if name in given]:
        raise ValueError(f"{where}: either synthetic, or clips that are there; leave out {others[0]}")
    refuse_unknown(given["synthetic"], [field.name for field in fields(CorpusSettings)], f"{where}.synthetic")
    settings = CorpusSettings(**given["synthetic"])
    shards = given.get("shards") or {}
    refuse_unknown(shards, _SHARD_KEYS, f"{where}.shards")
    picture = shards.get("format", "h264")
    sound = shards.get("audio", {"original": "original", "h264": "aac", "jpeg": "wav"}.get(picture, "original"))
    storage = StorageFormat.from_dict({"video": picture, "audio": sound, "size": shards.get("size", settings.size)})
    return Corpus(synthetic=settings, storage=storage, shard_mb=float(shards.get("shard_mb", 4.0)))


def _numbers(given: Any, where: str, least: int) -> tuple[int, ...]:
    numbers = given if isinstance(given, list) else [given]
    if not numbers or not all(type(one) is int and one >= least for one in numbers) or len(set(numbers)) < len(numbers):
        raise ValueError(f"{where}: {given!r} is not a list of different whole numbers from {least} on")
    return tuple(numbers)


def _whole(given: Any, where: str) -> int:
    return _numbers(given, where, 1)[0]


def _folds(given: Any, where: str) -> tuple[int, ...] | Literal["all"] | None:
    if given is None or given == "all":
        return "all" if given else None
    return _numbers(given, f"{where}folds", 1)


def _cells(
    given: Any, pretrainings: Mapping[str, Any], finetunings: Mapping[str, Any], where: str
) -> tuple[tuple[str, str], ...]:
    products = [{}] if given is None else given
    if not isinstance(products, list):
        raise ValueError(f"{where}runs is a list of products, each {{pretraining: [...], finetuning: [...]}}")
    cells: dict[tuple[str, str], None] = {}
    for number, product in enumerate(products, start=1):
        refuse_unknown(product, ("pretraining", "finetuning"), f"{where}runs, number {number}")
        chosen = []
        for axis, known in (("pretraining", pretrainings), ("finetuning", finetunings)):
            names = product.get(axis, list(known))
            names = names if isinstance(names, list) else [names]
            refuse_unknown(names, known, f"{where}runs, number {number}, {axis}")
            chosen.append(names)
        cells |= dict.fromkeys((one, other) for one in chosen[0] for other in chosen[1])
    return tuple(cells)


def _reference(
    given: Mapping[str, Any], pretrainings: Mapping[str, Any], finetunings: Mapping[str, Any], where: str
) -> dict[str, str | None]:
    compare = given.get("compare") or {}
    refuse_unknown(compare, ("pretraining", "finetuning"), f"{where}compare")
    for axis, known in (("pretraining", pretrainings), ("finetuning", finetunings)):
        if axis in compare:
            refuse_unknown([compare[axis]], known, f"{where}compare.{axis}")
    return {axis: compare.get(axis) for axis in ("pretraining", "finetuning")}


def _metrics(given: Any, where: str) -> tuple[str, ...]:
    if not isinstance(given, list) or not given:
        raise ValueError(f"{where}metrics: {given!r} is not a list of scores, for instance [uar, war]")
    refuse_unknown(
        [name for name in given if not str(name).startswith(tuple(f"{one}_" for one in DIMENSIONAL))],
        (*CATEGORICAL, *DIMENSIONAL), f"{where}metrics",
    )  # fmt: skip
    return tuple(given)


def _figure(given: Any, where: str) -> FigureSpec:
    refuse_unknown(given, [field.name for field in fields(FigureSpec)], f"{where}figure")
    spec = FigureSpec(**given)
    refuse_unknown([spec.kind], ("bars", "lines"), f"{where}figure.kind")
    if spec.kind == "lines" and not str(spec.x).startswith(("pretraining.", "finetuning.")):
        raise ValueError(
            f"{where}figure.x is {spec.x!r}; lines need the option whose values are on the axis, for instance "
            "finetuning.data.label_fraction or pretraining.trainer.max_epochs"
        )
    return spec
