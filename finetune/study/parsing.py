"""The jobs' own command lines, asked what they make of a variant's settings before anything is run."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.data import FinetuneData
from finetune.module import FinetuneModule
from finetune.settings import IMMATERIAL, FinetuneParsedOnly, ParsedOnly
from finetune.study.options import flatten, nearest, with_options, write_yaml
from pretrain.__main__ import PretrainCLI
from pretrain.data import PretrainData
from pretrain.module import PretrainModule

_ALWAYS = ("seed_everything", "data.seed", "data.test_fold")
_ELSEWHERE = ("model.init", "data.val_shards")
"""Their content is compared, wherever it lies."""
_FREE = ("model.architecture.", "model.labels.")
"""Groups whose names the command line leaves to the model or to the corpus."""


class _PretrainParsedOnly(ParsedOnly, PretrainCLI):
    pass


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """Settings that a job understands."""

    config: Any
    """By attributes, as in the YAML."""
    values: Mapping[str, Any]
    """All of them, defaults included, as plain values by dotted name."""
    material: Mapping[str, Any]
    """What of them decides results and is not the job's default, by dotted name. A new option of a later version, left
    at its default, changes nothing here."""


class JobParser:
    """The command line of ``pretrain fit`` or ``finetune fit``; making one takes a second, asking it far less."""

    def __init__(self, job: str) -> None:
        with warnings.catch_warnings():  # that the process was started with other arguments, which is meant
            warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
            least = ["fit", "--trainer.default_root_dir=."]
            if job == "pretrain":
                arguments = [*least, "--data.shards=[none]"]
                self._cli: Any = _PretrainParsedOnly(PretrainModule, PretrainData,
                                                     seed_everything_default=0, args=arguments)  # fmt: skip
            else:
                arguments = [*least, "--model.labels.classes={label: [a, b]}"]
                self._cli = FinetuneParsedOnly(FinetuneModule, FinetuneData, seed_everything_default=0, args=arguments)
        self._defaults = _plain(self._cli.config.fit)

    def parse(self, settings: Mapping[str, Any], options: Mapping[str, Any], what: str) -> Parsed:
        """Read settings.

        Args:
            settings: nested, with everything in it.
            options: those of the variant, by dotted names, for the hint at what may have been meant.
            what: names the variant.

        Raises:
            ValueError: the variant, what the command line says, and the nearest option.
        """
        said = io.StringIO()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "settings.yaml"
            path.write_text(write_yaml(with_options(settings, {"trainer.default_root_dir": folder})))
            try:
                with contextlib.redirect_stderr(said):
                    self._cli.config = self._cli.parser.parse_args(["fit", "--config", str(path)])
            except SystemExit:
                text = said.getvalue()
                reason = text[text.rfind("error: ") :].removeprefix("error: ").replace(str(path), "the settings")
                raise ValueError(f"{what}: {self._hint(options)}{' '.join(reason.split())}") from None
        try:
            self._cli.before_instantiate_classes()
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from error
        flat = _plain(self._cli.config.fit)
        skipped = (IMMATERIAL - {"data.test_fold"}) | set(_ELSEWHERE)
        material = {
            name: value
            for name, value in sorted(flat.items())
            if name not in skipped and (name in _ALWAYS or self._defaults.get(name) != value)
        }
        return Parsed(config=self._cli.config.fit, values=flat, material=material)

    def _hint(self, options: Mapping[str, Any]) -> str:
        groups = {name.rsplit(".", depth)[0] for name in self._defaults for depth in range(1, name.count(".") + 1)}
        known = {*self._defaults, *groups}
        unknown = [name for name in options if name not in known and not name.startswith(_FREE)]
        return "".join(f"there is no option {name!r}{nearest(name, known)} " for name in unknown)


@functools.cache
def job_parser(job: str) -> JobParser:
    """One of each job is enough for all studies of a process."""
    return JobParser(job)


def _plain(config: Any) -> dict[str, Any]:
    return {name: json.loads(json.dumps(value, default=str)) for name, value in flatten(config.clone().as_dict())}
