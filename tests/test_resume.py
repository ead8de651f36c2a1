"""Going on after a death: at any place, with any limit, the run becomes the undisturbed one, bit for bit."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

import finetune.__main__
import pretrain.__main__
from hicmae.data.shard_writer import write_shards
from tests import test_finetune, test_pretrain
from tests.corpus import make_corpus
from tests.tracing import Died, check_same, read_trace

MAINS = {"pretrain": pretrain.__main__.main, "finetune": finetune.__main__.main}


@pytest.fixture(scope="module", autouse=True)
def no_pictures() -> Iterator[None]:
    """Figures take two thirds of so short a run, and are not the subject here."""
    with pytest.MonkeyPatch.context() as patch:
        for where in ("pretrain.callbacks.draw_curves", "pretrain.callbacks.draw_reconstruction",
                      "finetune.callbacks.draw_curves", "finetune.finish._draw"):  # fmt: skip
            patch.setattr(where, lambda *args, **settings: None)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("resume")
    manifest = make_corpus(folder / "corpus", 26, corrupt=[5])
    write_shards(manifest, folder / "shards", shard_mb=0.06)
    return {"pretrain": folder / "shards", "finetune": manifest.path}


def arguments(job: str, data: dict[str, Path], root: Path, *more: str) -> list[str]:
    base = {"pretrain": test_pretrain, "finetune": test_finetune}[job].arguments(data[job], root)
    trace = ("--trainer.callbacks+=tests.tracing.TraceBatches", f"--trainer.callbacks.path={root / 'trace.jsonl'}")
    return [*base, "--data.max_skip_fraction=0.5", *more, *trace]


def weights(root: Path, name: str = "last") -> dict[str, Any]:
    state = torch.load(root / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return state["state_dict"] | {f"moments {i}": v for i, v in enumerate(moments(state))}


def moments(state: dict[str, Any]) -> list[torch.Tensor]:
    return [v for one in state["optimizer_states"][0]["state"].values() for v in one.values()]


def assert_same_weights(root: Path, other: Path, name: str = "last") -> None:
    ours, theirs = weights(root, name), weights(other, name)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


# By name: job, settings. 26 clips in batches of 4 are 6 a pre-training epoch; 19 to fine-tune with are 3, after
# some speakers have become validation.
RUNS: dict[str, tuple[str, list[str]]] = {
    "epochs": ("pretrain", ["--trainer.max_epochs=2"]),
    "steps": ("pretrain", ["--trainer.max_epochs=-1", "--trainer.max_steps=13"]),
    "windows": ("pretrain", ["--trainer.max_epochs=2", "--trainer.accumulate_grad_batches=4"]),
    "less work": (
        "pretrain",
        ["--trainer.max_epochs=1", "--trainer.max_steps=11", "--data.views_per_clip=2", "--data.windows_per_clip=2",
         "--data.video_decode_ratio=0.5", "--data.audio_decode_ratio=0.5"],
    ),
    "validated": ("finetune", ["--trainer.max_epochs=3"]),
    "validated within": ("finetune", ["--trainer.max_epochs=2", "--trainer.val_check_interval=2"]),
    "validated steps": (
        "finetune", ["--trainer.max_epochs=-1", "--trainer.max_steps=5", "--trainer.accumulate_grad_batches=2"]
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory):
    """The run of a name without a death, made once."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            job, settings = RUNS[name]
            made[name] = tmp_path_factory.mktemp("undisturbed")
            assert MAINS[job](arguments(job, data, made[name], *settings)) == 0
        return made[name]

    return get


@pytest.mark.parametrize(
    ("name", "hook", "batches", "every"),
    [
        ("epochs", "on_train_batch_end", 4, 1),
        ("epochs", "on_before_optimizer_step", 5, 2),
        ("epochs", "on_train_epoch_end", 1, None),
        ("steps", "on_train_batch_end", 7, 1),  # the first death comes right after an epoch's last checkpoint
        ("steps", "on_train_end", 1, 5),
        ("windows", "on_train_batch_end", 5, 1),  # within a window
        ("windows", "on_train_batch_start", 4, 1),
        ("less work", "on_train_batch_end", 9, 1),  # between the windows of a clip
        ("validated", "on_validation_end", 2, 1),
        ("validated", "on_train_batch_end", 3, 1),
        ("validated", "on_train_epoch_end", 1, None),
        ("validated", "on_train_batch_start", 4, None),  # the epoch's best is saved, and nothing after it
        ("validated within", "on_validation_end", 2, 1),
        ("validated within", "on_train_batch_end", 2, 1),
        ("validated steps", "on_train_batch_end", 4, 1),
    ],
)
def test_whenever_it_dies_it_becomes_the_undisturbed_run(
    data: dict[str, Path], undisturbed: Any, tmp_path: Path, name: str, hook: str, batches: int, every: int | None
) -> None:
    job, settings = RUNS[name]
    command = arguments(job, data, tmp_path, *settings, "--ckpt_path=auto",
                        *([f"--checkpoint.every_n_train_steps={every}"] if every else []))  # fmt: skip
    die = ["--trainer.callbacks+=tests.tracing.DieAt", f"--trainer.callbacks.hook={hook}",
           f"--trainer.callbacks.batches={batches}"]  # fmt: skip
    deaths = 0
    for _ in range(3):
        try:
            assert MAINS[job]([*command, *die]) == 0
            break
        except Died:
            deaths += 1
    assert deaths
    torch.manual_seed(deaths)  # the process's own random state must not matter
    assert MAINS[job](command) == 0
    expected = undisturbed(name)
    check_same(tmp_path / "trace.jsonl", expected / "trace.jsonl")
    assert_same_weights(tmp_path, expected)
    if job == "finetune":
        assert_same_weights(tmp_path, expected, "best")
        ours, theirs = (json.loads((root / "metrics.json").read_text()) for root in (tmp_path, expected))
        for part in ("best", "last"):
            assert ours[part]["step"] == theirs[part]["step"]
            assert ours[part]["val"] == theirs[part]["val"]


def test_a_limit_of_time_within_a_window_waits_for_its_end(
    data: dict[str, Path], undisturbed: Any, tmp_path: Path
) -> None:
    command = arguments("pretrain", data, tmp_path, *RUNS["windows"][1], "--ckpt_path=auto")
    assert MAINS["pretrain"]([*command, "--trainer.callbacks+=tests.test_resume.OutOfTime"]) == 0
    assert [record["step"] for record in read_trace(tmp_path / "trace.jsonl")] == [0, 0, 0, 1]
    assert MAINS["pretrain"](command) == 0
    assert check_same(tmp_path / "trace.jsonl", undisturbed("windows") / "trace.jsonl") == 0
    assert_same_weights(tmp_path, undisturbed("windows"))


class OutOfTime(Callback):
    """Asks for the end after the second batch, as Lightning's timer does."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.should_stop = trainer.should_stop or batch_idx == 1


def test_a_signal_within_a_window_waits_for_its_end(data: dict[str, Path], undisturbed: Any, tmp_path: Path) -> None:
    command = arguments("pretrain", data, tmp_path, *RUNS["windows"][1], "--ckpt_path=auto")
    with pytest.raises(SystemExit) as stop:
        MAINS["pretrain"]([*command, "--trainer.callbacks+=tests.test_resume.Signal"])
    assert stop.value.code == 128 + signal.SIGTERM
    assert [record["step"] for record in read_trace(tmp_path / "trace.jsonl")] == [0, 0, 0, 1]
    assert MAINS["pretrain"](command) == 0
    assert check_same(tmp_path / "trace.jsonl", undisturbed("windows") / "trace.jsonl") == 0
    assert_same_weights(tmp_path, undisturbed("windows"))


class Signal(Callback):
    """Sends SIGTERM in the second batch of a window of four."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            os.kill(os.getpid(), signal.SIGTERM)


# ---------------------------------------------------------------- which one is taken


@pytest.fixture
def stopped(data: dict[str, Path], undisturbed: Any, tmp_path: Path) -> Path:
    """A copy of a finished run, of which the checkpoints of steps 10 and 12 are left."""
    root = tmp_path / "run"
    shutil.copytree(undisturbed("epochs"), root, symlinks=True)
    (root / "checkpoints" / "last.ckpt").unlink()
    for path in root.glob("checkpoints/step*.ckpt"):
        path.unlink()
    (root / "trace.jsonl").unlink()
    try:
        MAINS["pretrain"](arguments("pretrain", data, root, *RUNS["epochs"][1], "--checkpoint.every_n_train_steps=2",
                                    "--trainer.callbacks+=tests.tracing.DieAt", "--trainer.callbacks.batches=12",
                                    "--trainer.callbacks.hook=on_train_batch_end"))  # fmt: skip
    except Died:
        (root / "trace.jsonl").unlink()
    assert sorted(p.name for p in root.glob("checkpoints/*")) == ["last.ckpt", "step00000008.ckpt", "step00000010.ckpt"]
    return root


def go_on(data: dict[str, Path], root: Path, *more: str) -> int:
    return MAINS["pretrain"](arguments("pretrain", data, root, *RUNS["epochs"][1], "--ckpt_path=auto", *more))


def first_step(root: Path) -> int:
    return read_trace(root / "trace.jsonl")[0]["step"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, empty])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    data: dict[str, Path], stopped: Path, undisturbed: Any, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    newest = stopped / "checkpoints" / "step00000010.ckpt"
    damage(newest)
    with caplog.at_level(logging.INFO):
        assert go_on(data, stopped) == 0
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert sum(str(newest) in warning for warning in warnings) == 1
    assert f"going on from {stopped / 'checkpoints' / 'step00000008.ckpt'}: step 8" in caplog.text
    assert first_step(stopped) == 9
    assert_same_weights(stopped, undisturbed("epochs"))
    assert sorted(p.name for p in stopped.glob("checkpoints/step*")) == ["step00000008.ckpt", "step00000012.ckpt"]


def test_foreign_files_and_leftovers_of_a_kill_do_not_disturb(
    data: dict[str, Path], stopped: Path, undisturbed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    folder = stopped / "checkpoints"
    torch.save({"state_dict": {}, "global_step": 99}, folder / "other.ckpt")
    torch.save({"hicmae": {"job": "finetune"}, "global_step": 99}, folder / "tuned.ckpt")
    (folder / "gone.ckpt").symlink_to("nothing")
    leftover = folder / ".step00000011.ckpt.tmp"
    leftover.write_bytes(b"half")
    assert go_on(data, stopped) == 0
    for name, reason in (("other", "not written by HiCMAE"), ("tuned", "the job finetune"), ("nothing", "points to")):
        assert any(name in r.getMessage() and reason in r.getMessage() for r in caplog.records), name
    assert first_step(stopped) == 11
    assert not leftover.exists()
    assert (folder / "other.ckpt").exists()


def test_the_newest_is_told_by_its_step_not_by_its_time(data: dict[str, Path], stopped: Path) -> None:
    (stopped / "checkpoints" / "step00000008.ckpt").touch()
    assert go_on(data, stopped) == 0
    assert first_step(stopped) == 11


def test_nothing_usable_is_an_error_and_nothing_at_all_a_new_run(
    data: dict[str, Path], stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    for path in stopped.glob("checkpoints/step*"):
        truncate(path)
    assert go_on(data, stopped) == 2
    assert "none of the 2 checkpoints" in capsys.readouterr().err
    with caplog.at_level(logging.INFO):
        assert go_on(data, tmp_path / "fresh", "--trainer.max_steps=1") == 0
    assert "a new run starts" in caplog.text
    assert MAINS["pretrain"](arguments("pretrain", data, tmp_path / "none", "--ckpt_path=last")) == 2
    assert "no checkpoint in" in capsys.readouterr().err


def test_a_finished_run_says_so_and_ends_at_once(
    data: dict[str, Path], undisturbed: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "run"
    shutil.copytree(undisturbed("epochs"), root, symlinks=True)
    (root / "trace.jsonl").unlink()
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    with caplog.at_level(logging.INFO):
        assert go_on(data, root) == 0
    assert "finished: 2 epochs, 12 steps" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before

    # killed between the last checkpoint and the export: the export is made up for, no batch is trained
    shutil.rmtree(root / "export")
    assert go_on(data, root) == 0
    assert (root / "export" / "model.safetensors").is_file()
    assert read_trace(root / "trace.jsonl") == []

    # a higher limit: it goes on
    assert go_on(data, root, "--trainer.max_epochs=3") == 0
    assert [record["step"] for record in read_trace(root / "trace.jsonl")] == list(range(13, 19))


def test_a_new_run_does_not_replace_an_earlier_one_unasked(
    data: dict[str, Path], stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(stopped.glob("checkpoints/*"))
    assert MAINS["pretrain"](arguments("pretrain", data, stopped, *RUNS["epochs"][1])) == 2
    assert "give --ckpt_path auto to go on with it" in capsys.readouterr().err
    assert sorted(stopped.glob("checkpoints/*")) == before


def test_going_back_to_an_earlier_checkpoint_drops_what_came_after(data: dict[str, Path], stopped: Path) -> None:
    earlier = stopped / "checkpoints" / "step00000008.ckpt"
    command = arguments("pretrain", data, stopped, *RUNS["epochs"][1], f"--ckpt_path={earlier}")
    assert MAINS["pretrain"]([*command, "--trainer.max_steps=9"]) == 0
    assert sorted(p.name for p in stopped.glob("checkpoints/step*")) == ["step00000008.ckpt", "step00000009.ckpt"]
