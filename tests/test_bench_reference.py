from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from timm.models import is_model
from torch import nn

from hicmae.bench import memory, versus
from hicmae.bench.batch import SyntheticBatch
from hicmae.bench.measure import timed
from hicmae.bench.reference import PUBLISHED, Published, Reference
from hicmae.bench.reference_checkout import MODULES, Checkout
from hicmae.bench.reference_pair import Pair, finetuning_pair, pretraining_pair
from hicmae.bench.settings import BenchSettings
from hicmae.config import PRESETS, ModelConfig
from tests.fake_reference import FILES, write_checkout
from tests.tiny_model import TINY

PAIRS = {"pretrain": pretraining_pair, "finetune": finetuning_pair}


@pytest.fixture(autouse=True)
def micro_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is a far smaller model here."""
    fields = {k: v for k, v in TINY.to_dict().items() if v != getattr(ModelConfig(), k)}
    monkeypatch.setitem(PRESETS, "micro", fields)
    monkeypatch.setitem(PUBLISHED, "micro", Published(pretraining="pretrain_fake", recognizer="avit_fake"))


def make_pair(folder: Path, stage: str, device: str = "cpu", **changed: str) -> Pair:
    return PAIRS[stage](Reference.at(write_checkout(folder, **changed), "micro", device), 2)


NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("stage", PAIRS)
def test_both_start_from_the_same_loss_and_take_turns(tmp_path: Path, stage: str, device: str) -> None:
    pair = make_pair(tmp_path, stage, device)
    ours, theirs = pair.losses
    assert ours == pytest.approx(theirs, rel=1e-5)
    turns: list[str] = []

    def step(name: str) -> None:
        turns.append(name)
        {"ours": pair.ours, "theirs": pair.theirs}[name].whole()

    times = timed({n: lambda n=n: step(n) for n in ("ours", "theirs")}, rounds=2, warmup=0, device=torch.device(device))
    assert turns == ["ours", "theirs", "theirs", "ours"]
    assert all(len(seconds) == 2 for seconds in times.values())


@pytest.mark.parametrize("stage", PAIRS)
def test_their_whole_step_learns_and_forward_and_backward_alone_do_not(tmp_path: Path, stage: str) -> None:
    theirs = make_pair(tmp_path, stage).theirs
    first = theirs.forward_backward()
    gradients = [p.grad.norm() for p in theirs.model.parameters() if p.grad is not None]
    assert theirs.forward_backward() == first
    assert [p.grad.norm() for p in theirs.model.parameters() if p.grad is not None] == gradients  # not added up
    assert theirs.whole() == pytest.approx(first, rel=1e-6)
    for _ in range(3):
        last = theirs.whole()
    assert last < first


def test_our_model_is_prepared_and_keeps_its_weights(tmp_path: Path) -> None:
    prepared: list[nn.Module] = []
    reference = Reference.at(write_checkout(tmp_path), "micro", "cpu")
    pair = pretraining_pair(reference, 2, prepare=prepared.append)
    assert prepared == [pair.ours.model]
    assert float(pair.ours.forward_backward()) == pytest.approx(pair.losses[0], rel=1e-6)


def test_their_recipe_is_the_papers(tmp_path: Path) -> None:
    theirs = make_pair(tmp_path, "finetune").theirs
    theirs.whole()
    rates = {group["name"]: group["lr"] for group in theirs._optimizer.param_groups}
    assert rates["inner.head.classifier.weight"] == pytest.approx(1e-3 * 2 / 256)
    assert rates["inner.backbone.video_encoder.embed.weight"] == pytest.approx(1e-3 * 2 / 256 * 0.75**7)  # 4 + 2 layers
    assert theirs.model.arguments["drop_path_rate"] == 0.0


@pytest.mark.parametrize(
    ("stage", "module", "old", "new"),
    [
        ("pretrain", "engine_for_pretraining_av", "loss_weight * contrastive", "0.9 * contrastive"),
        ("finetune", "engine_for_finetuning_av", "criterion(model", "1.001 * criterion(model"),
    ],
)
def test_another_loss_is_not_compared(tmp_path: Path, stage: str, module: str, old: str, new: str) -> None:
    assert old in FILES[module]
    with pytest.raises(ValueError, match=r"first losses differ.* ours is \d+\.\d+, the checkout's \d+\.\d+"):
        make_pair(tmp_path, stage, **{module: FILES[module].replace(old, new)})


def test_a_loss_that_is_no_number_is_not_compared(tmp_path: Path) -> None:
    text = FILES["modeling_pretrain_av"].replace("output.video_loss +", "float('nan') * output.video_loss +")
    with pytest.raises(ValueError, match=r"first losses differ.* nan"):
        make_pair(tmp_path, "pretrain", modeling_pretrain_av=text)


def test_nothing_is_printed_and_the_wait_for_a_gpu_is_as_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = torch.cuda.synchronize, torch.cuda.amp.autocast
    pair = make_pair(tmp_path, "finetune")
    pair.theirs.whole()
    assert capsys.readouterr().out == ""
    assert (torch.cuda.synchronize, torch.cuda.amp.autocast) == before


# ---------------------------------------------------------------- imports


def test_imports_leave_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ModuleType("utils")
    monkeypatch.setitem(sys.modules, "utils", own)
    path, stand_ins = list(sys.path), ("torch._six", "timm.models.registry", "timm.models.layers", "timm.optim.nadam")
    importlib.import_module("timm.optim.nadam")  # installed, and may stay
    before = {name: sys.modules.get(name) for name in stand_ins}
    checkout = Checkout.at(write_checkout(tmp_path))
    assert Path(str(checkout.modules["utils"].__file__)).parent == tmp_path  # theirs, not the one that was there
    assert sys.modules["utils"] is own
    assert not set(MODULES) - {"utils"} & set(sys.modules)
    assert {name: sys.modules.get(name) for name in stand_ins}.items() >= before.items()
    assert sys.path == path
    assert not is_model("avit_fake")
    assert not [file for file in tmp_path.iterdir() if file.suffix != ".py"]


def test_an_environment_in_the_checkout_stays_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = tmp_path / ".venv" / "lib"
    packages.mkdir(parents=True)
    for name in ("installed_here", "imported_later"):
        (packages / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(packages)
    before = importlib.import_module("installed_here")
    try:
        Checkout.at(write_checkout(tmp_path, optim_factory="import imported_later\n" + FILES["optim_factory"]))
        assert sys.modules["installed_here"] is before
        assert "imported_later" in sys.modules
        assert "optim_factory" not in sys.modules
    finally:
        for name in ("installed_here", "imported_later"):
            sys.modules.pop(name, None)


def test_two_checkouts_do_not_mix(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = Checkout.at(write_checkout(tmp_path / "a"))
    second = Checkout.at(write_checkout(tmp_path / "b"))
    assert first.modules["utils"] is not second.modules["utils"]
    assert first.modules["engine_for_pretraining_av"].utils is first.modules["utils"]
    assert second.modules["engine_for_pretraining_av"].utils is second.modules["utils"]


@pytest.mark.parametrize("package", ["tensorboardX", "scipy.special", "timm.optim.adafactor", "timm.models.layers"])
def test_what_no_step_uses_need_not_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
    Checkout.at(write_checkout(tmp_path))
    assert sys.modules[package] is None


def test_what_their_code_does_use_must_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "einops", None)  # type: ignore[arg-type]
    text = "from einops import rearrange\n" + FILES["modeling_finetune_av"]
    with pytest.raises(ValueError, match="pip install einops"):
        Checkout.at(write_checkout(tmp_path, modeling_finetune_av=text))
    assert "utils" not in sys.modules


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"optim_factory\.py cannot be imported: SyntaxError"):
        Checkout.at(write_checkout(tmp_path, optim_factory="def ("))


# ---------------------------------------------------------------- paths and versions


def test_a_wrong_path_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is no checkout.* looked in it for modeling_pretrain_av\.py.*is no folder"):
        Reference.at(tmp_path / "nowhere", "base", "cpu")
    write_checkout(tmp_path)
    (tmp_path / "optim_factory.py").unlink()
    with pytest.raises(ValueError, match=r"missing: optim_factory\.py$"):
        Reference.at(tmp_path, "base", "cpu")


def test_other_names_of_functions_are_reported(tmp_path: Path) -> None:
    text = FILES["modeling_finetune_av"].replace("avit_fake", "avit_fake_v2")
    with pytest.raises(
        ValueError, match=r"modeling_finetune_av\.py has no function or class avit_fake; near it: avit_"
    ):
        Reference.at(write_checkout(tmp_path, modeling_finetune_av=text), "micro", "cpu")


def test_other_arguments_are_reported(tmp_path: Path) -> None:
    text = FILES["modeling_finetune_av"].replace("num_classes, **arguments", "num_classes")
    text = text.replace("(num_classes)), arguments)", "(num_classes)), {})")
    with pytest.raises(ValueError, match=r"avit_fake of .* takes other arguments than expected"):
        make_pair(tmp_path, "finetune", modeling_finetune_av=text)


def test_other_weights_are_reported(tmp_path: Path) -> None:
    text = FILES["modeling_pretrain_av"].replace('preset("micro")', 'preset("micro", depth=5)')
    with pytest.raises(ValueError, match="has other weights than ours"):
        make_pair(tmp_path, "pretrain", modeling_pretrain_av=text)


@pytest.mark.parametrize(("preset", "why"), [("tiny", "not published"), ("mini", "not one of the paper's")])
def test_a_preset_that_they_do_not_have(tmp_path: Path, preset: str, why: str) -> None:
    assert ModelConfig.preset(preset)  # one that ours has
    with pytest.raises(ValueError, match=f"{why}; choose small or base"):
        Reference.at(tmp_path, preset, "cpu")


# ---------------------------------------------------------------- in hicmae bench


@pytest.mark.parametrize("stage", versus.TRAINING)
def test_the_bench_times_both_and_the_memory_of_theirs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    settings = BenchSettings(preset="micro", batch=2, rounds=1, seconds=0.0)
    path = str(write_checkout(tmp_path))

    def peak_memory(stage: str, settings: BenchSettings, *, against: str | None = None) -> int:
        if against is None:
            return 1
        batch = SyntheticBatch.make(settings.config, settings.batch, settings.torch_device)
        step = versus.reference_step(versus.load_reference(against, settings), stage, settings, batch)
        return 2 if step() > 0 else 0

    monkeypatch.setattr(versus, "peak_memory", peak_memory)
    whole, part = versus.versus(path, stage, settings)
    assert len(whole.ours_seconds) == len(whole.theirs_seconds) == len(part.theirs_seconds) == 1
    assert (whole.ours_peak_bytes, whole.theirs_peak_bytes) == (1, 2)


def test_libraries_of_the_checkout_are_no_memory_of_their_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    order: list[str] = []
    monkeypatch.setattr(versus, "load_reference", lambda path, settings: order.append(f"imported {path}"))
    monkeypatch.setattr(memory, "measure_growth", lambda device, build: order.append("measured") or 7)
    settings = BenchSettings(preset="micro", batch=1)
    memory._main("pretrain", json.dumps(dataclasses.asdict(settings)), "a/checkout")
    assert order == ["imported a/checkout", "measured"]
    assert capsys.readouterr().out == "7\n"
