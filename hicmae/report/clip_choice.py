"""The run's own data, found again, and which of its clips are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hicmae.data.cache_settings import CacheSettings
from hicmae.data.fetch_error import FetchError
from hicmae.data.order import generator
from hicmae.data.shard_source import ShardSource
from hicmae.data.source import ClipSource, ManifestSource
from hicmae.data.splits import VAL, split_source
from hicmae.report.predictions import ShownPredictions
from hicmae.report.run import NotAvailableError, Run

_MANIFESTS = (".csv", ".parquet")


@dataclass(frozen=True, kw_only=True)
class ClipChoice:
    """Some clips of a source."""

    numbers: list[int]
    said: str
    """Which they are, in words."""
    part: str
    """test, val, or train for clips that the model has learnt from."""


def open_data(run: Run, elsewhere: Sequence[str] = ()) -> ClipSource:
    """The clips that the run's configuration names; held-out ones of a pre-training, where it has any.

    Args:
        run: the run.
        elsewhere: a manifest, or shard folders, to take instead.

    Raises:
        NotAvailableError: the configuration is not there, or the data are not.
    """
    places = list(elsewhere) or _configured(run)
    gigabytes = float(run.data.get("cache_gb") or 200.0)
    cache = CacheSettings.of(Path(folder) if (folder := run.data.get("cache_dir")) else None, gigabytes)
    try:
        if len(places) == 1 and str(places[0]).endswith(_MANIFESTS):
            return ManifestSource(places[0])
        return ShardSource([str(place) for place in places], cache)
    except (ValueError, OSError, FetchError) as error:
        where = "" if elsewhere else " (paths that are not absolute are looked for from the present folder)"
        raise NotAvailableError(
            f"the run's data cannot be opened{where}: {_first_line(error)}. Say where they are now with --data"
        ) from error


def _configured(run: Run) -> list[Any]:
    data = run.data
    found = (data.get("val_shards") or data.get("shards")) if run.kind == "pretrain" else data.get("shards")
    if not found and data.get("manifest"):
        found = [data["manifest"]]
    if not found:
        raise NotAvailableError("no config.yaml of the run says where its data are. Say where they are with --data")
    return list(found)


def choose_clips(run: Run, source: ClipSource, predictions: ShownPredictions | None, limit: int) -> ClipChoice:
    """At most ``limit`` clips, always the same ones: those behind the scores shown, else validation clips, and of a
    pre-training its held-out shards, else its training clips."""
    if predictions is not None:
        wanted = set(predictions.table["clip_id"])
        there = [number for number in range(len(source)) if source.info(number).clip_id in wanted]
        if not there:
            raise NotAvailableError(f"{source.name} has none of the clips that were scored")
        part, what = predictions.part, f"{predictions.part} clips"
    elif run.kind == "finetune":
        there, part, what = *_validation(run, source), "validation clips"
    else:
        there = list(range(len(source)))
        held_out = bool(run.data.get("val_shards"))
        part, what = ("val", "held-out clips") if held_out else ("train", "training clips, which the model has seen")
    chosen = sorted(there[i] for i in generator("report").permutation(len(there))[:limit])
    return ClipChoice(numbers=chosen, said=f"{len(chosen)} of {len(there)} {what}", part=part)


def _validation(run: Run, source: ClipSource) -> tuple[list[int], str]:
    """The validation clips of a run that has not come to its scores, divided as the run divides them."""
    data = run.data
    try:
        splits = split_source(
            source,
            test_fold=data.get("test_fold"),
            paper_protocol=bool(data.get("paper_protocol")),
            val_fraction=float(data.get("val_fraction", 0.2)),
            seed=int(data.get("seed", 0)),
            allow_shared_subjects=True,
            together=data.get("average_over"),
        )
    except ValueError as error:
        raise NotAvailableError(f"the validation clips cannot be told: {error}") from error
    names = {splits.val.info(number).clip_id for number in range(len(splits.val))}
    return [number for number in range(len(source)) if source.info(number).clip_id in names], VAL


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    more = f" (and {len(lines) - 2} lines more)" if len(lines) > 2 else ""
    return " ".join(line.strip() for line in lines[:2]) + more if lines else type(error).__name__
