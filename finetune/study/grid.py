"""A study as runs that depend on one another, each named by a digest of all that decides its result."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from hicmae import __version__
from hicmae.data.source import digest_of
from hicmae.data.synthetic.corpus import RECIPE_VERSION

Kind = Literal["corpus", "shards", "pretrain", "finetune", "probe", "test"]
RESULTS: Mapping[Kind, tuple[str, ...]] = {
    "corpus": ("corpus/manifest.csv",),
    "shards": ("shards/index.json",),
    "pretrain": ("export/config.json", "export/model.safetensors"),
    "finetune": ("metrics.json", "predictions.parquet", "export/config.json", "export/model.safetensors"),
    "probe": ("probe/probe.json", "probe/predictions.parquet"),
    "test": ("test/metrics.json", "test/predictions.parquet"),
}
"""What each leaves that others or the table need."""
_NAMES = {"corpus": "corpus", "shards": "shards", "pretrain": "pre-training", "finetune": "fine-tuning",
          "probe": "probe", "test": "test"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Link:
    """A path within another run's folder."""

    run: Run
    path: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One process, in one folder."""

    kind: Kind
    title: str
    """Variants, seed and fold, for people."""
    identity: Mapping[str, Any]
    """What decides the result, as plain values; of the runs it needs, their digests."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the job, nested; of a corpus or its shards, their own."""
    links: Mapping[str, Link | tuple[Link, ...]] = field(default_factory=dict)
    """Settings that name files of other runs, by dotted names."""

    @property
    def name(self) -> str:
        """For messages."""
        return f"{_NAMES[self.kind]} {self.title}".strip()

    @property
    def needs(self) -> tuple[Run, ...]:
        """Runs that have to be finished before."""
        found: dict[str, Run] = {}
        for link in self.links.values():
            for one in link if isinstance(link, tuple) else (link,):
                found[one.run.digest] = one.run
        return tuple(found.values())

    @cached_property
    def digest(self) -> str:
        """Changes with whatever decides the result."""
        content = {"kind": self.kind, "version": __version__, "needs": sorted(run.digest for run in self.needs)}
        return digest_of([json.dumps(content | dict(self.identity), sort_keys=True)])[:12]

    @property
    def folder_name(self) -> str:
        """Readable, and different for different results."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.title.lower().replace("%", "percent")).strip("-")[:60].strip("-")
        return f"{self.kind}-{slug}-{self.digest}" if slug else f"{self.kind}-{self.digest}"

    def with_all_it_needs(self) -> Iterator[Run]:
        """This run, after whatever it depends on; some maybe twice."""
        for run in self.needs:
            yield from run.with_all_it_needs()
        yield self


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a study: a pair of variants with a seed and a fold."""

    pretraining: str
    finetuning: str
    seed: int
    fold: int | None
    run: Run
    """Whose scores these are."""


def every_run(rows: Sequence[Row]) -> dict[str, Run]:
    """All runs of a study by digest, each after those that it needs."""
    return {run.digest: run for row in rows for run in row.run.with_all_it_needs()}


def corpus_run(settings: Any) -> Run:
    """The run that makes synthetic clips."""
    values = asdict(settings)
    return Run(kind="corpus", title="synthetic", identity={"recipe": RECIPE_VERSION} | values, settings=values)


def shards_run(corpus: Run, split: str, storage: Any, shard_mb: float) -> Run:
    """The run that packs one split of them."""
    values = {"split": split, "storage": asdict(storage), "shard_mb": shard_mb}
    links = {"manifest": Link(run=corpus, path="corpus/manifest.csv")}
    return Run(kind="shards", title=split, identity=values, settings=values, links=links)
