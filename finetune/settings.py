"""What a command line and its YAML files amount to, without running anything; and what of it decides results."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.__main__ import FinetuneCLI
from finetune.data import FinetuneData, open_source
from finetune.module import FinetuneModule
from hicmae.data.cache_settings import CacheSettings
from hicmae.data.shard_source import ShardSource
from hicmae.data.source import ManifestSource, digest_of
from hicmae.file_digest import sha256_of
from hicmae.training.cli import JobCLI

# Where files are, how fast they come and who is told of it: none of it changes a score. The clips themselves are
# compared by their content, wherever they lie.
IMMATERIAL = {
    "config", "subcommand", "ckpt_path", "weights_only", "wandb", "wandb_project", "best.dirpath", "best.verbose",
    "checkpoint.every_n_train_steps", "checkpoint.keep", "trainer.default_root_dir", "trainer.enable_progress_bar",
    "trainer.enable_model_summary", "trainer.log_every_n_steps", "trainer.logger", "trainer.profiler", "data.shards",
    "data.manifest", "data.num_workers", "data.timeout_s", "data.slowest_shards", "data.cache_dir", "data.cache_gb",
    "data.test_fold", "follow_test",
}  # fmt: skip
# Younger than settings that cross-validations remember; without them a run was as with these.
_SINCE = {"data.label_fraction": 1.0, "data.epoch_clips": None}
_SHOWN = 12


class ParsedOnly(JobCLI):
    """Mixed into a job: its command line up to the point at which something would be built."""

    def _set_seed(self) -> None:
        pass

    def instantiate_classes(self) -> None:
        pass

    def after_instantiate_classes(self) -> None:
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        pass


class FinetuneParsedOnly(ParsedOnly, FinetuneCLI):
    pass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A resolved configuration of ``fit``."""

    config: Any
    """By attributes, as in the YAML: ``config.data.test_fold``."""

    @property
    def material(self) -> dict[str, Any]:
        """What decides results, as plain values by dotted name."""
        flat = dict(_flatten(self.config.clone().as_dict()))
        untaught = "model.distillation." if self.config.model.teacher is None else "\0"
        return {
            name: value
            for name, value in sorted(flat.items())
            if name not in IMMATERIAL and not name.startswith(untaught) and (name, value) not in _SINCE.items()
        }

    def source(self) -> ShardSource | ManifestSource:
        """The labelled clips of all splits."""
        data = self.config.data
        return open_source(data.shards, data.manifest, CacheSettings.of(data.cache_dir, data.cache_gb))


def content_of(name: str, path: Path | str | None) -> str | None:
    """Changes with the bytes of the file or folder that ``model.NAME`` names."""
    if path is None:
        return None
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}, which model.{name} names")
    files = sorted(found for found in path.rglob("*") if found.is_file()) if path.is_dir() else [path]
    return digest_of([sha256_of(one) for one in files])


def resolve(arguments: Sequence[str]) -> Settings:
    """Read the arguments of ``python -m finetune fit``, and the files they name.

    Raises:
        SystemExit: an argument that is not understood; the parser has said which.
        ValueError: settings that contradict each other.
    """
    with warnings.catch_warnings():  # that the process was started with other arguments, which is meant
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
        parsed = FinetuneParsedOnly(FinetuneModule, FinetuneData, seed_everything_default=0, args=["fit", *arguments])
    return Settings(config=parsed.config.fit)


def check_unchanged(path: Path, material: Mapping[str, Any], remedy: str) -> None:
    """Hold settings against those that ``path`` remembers; where it does not exist yet, it will.

    Raises:
        ValueError: names what differs, both values, and the remedy.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.draft")
        draft.write_text(json.dumps(material, indent=2, sort_keys=True) + "\n")
        draft.replace(path)
        return
    before: dict[str, Any] = json.loads(path.read_text())
    names = [name for name in sorted({*before, *material}) if before.get(name) != material.get(name)]
    if names:
        lines = [f"{name}: {before.get(name)!r} before, {material.get(name)!r} now" for name in names[:_SHOWN]]
        lines += [f"... and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
        raise ValueError(f"{path}: begun with other settings\n  " + "\n  ".join(lines) + f"\n  {remedy}")


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, json.loads(json.dumps(value, default=str))
