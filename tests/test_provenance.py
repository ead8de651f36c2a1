"""What a run's export says of its making, apart from the runs of test_pretrain.py and test_finetune.py."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from lightning.pytorch.cli import SaveConfigCallback

from hicmae.training.provenance import RunProvenance


class Settings(SaveConfigCallback):
    """What the command line leaves in a trainer."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.parser: Any = SimpleNamespace(dump=lambda config, format: json.dumps(config))
        self.config: Any = settings


def test_folders_passwords_and_tokens_stay_at_home() -> None:
    shards = ["/home/ann/corpora/first", "https://ann:secret@host/corpora/second?token=x/y"]
    settings = {
        "model": {"init": "/home/ann/runs/export", "teacher": None}, "data": {"shards": shards, "batch_size": 4},
        "trainer": {"max_epochs": 3, "default_root_dir": "/home/ann/runs/mine"},
    }  # fmt: skip
    source = Clips("/home/ann/corpora/first, https://host/corpora/second")  # as ShardSource names itself
    trainer: Any = SimpleNamespace(
        is_global_zero=True, datamodule=SimpleNamespace(source=source), callbacks=[Settings(settings)],
        world_size=1, precision="32-true", global_step=0, current_epoch=0,
    )  # fmt: skip
    noted = RunProvenance()
    noted.on_fit_start(trainer, SimpleNamespace())  # type: ignore[arg-type]
    found = noted.now(trainer)
    assert found["data"]["name"] == "first, second"
    assert found["recipe"]["data"] == {"shards": ["first", "second"], "batch_size": 4}
    assert found["recipe"]["model"]["init"] == "export"
    assert not [word for word in ("ann", "secret", "token", "host") if word in json.dumps(found)]


class Clips:
    """A source of clips."""

    fingerprint = "f00d"

    def __init__(self, name: str) -> None:
        self.name = name

    def __len__(self) -> int:
        return 7
