"""Sharded pre-training on two processes: the losses and checkpoints of one process, exact resume, a whole export."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch._dynamo.utils
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

import hicmae
from benchmarks.communication import WAYS, expected
from hicmae.data.shard_writer import write_shards
from hicmae.probe_history import read_probes
from hicmae.speed import SpeedConfig, accelerate
from hicmae.training.sharding import ShardedStrategy, shard, whole_state
from pretrain.__main__ import main
from tests import test_finetune, test_pretrain
from tests.corpus import make_corpus
from tests.sharded_runs import BATCH
from tests.test_pretrain import curve, lines, weights
from tests.tiny_model import TINY, pretraining_batch, pretraining_model

SHALLOW = dataclasses.replace(TINY, depth=1, fusion_depth=1, decoder_depth=2, taps=(0,))
SHARDED = ["--trainer.devices=2", "--trainer.strategy=sharded", "--model.objective.negatives=global"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharding")
    write_shards(make_corpus(folder / "corpus", 24), folder / "shards", shard_mb=0.06)
    return folder / "shards"


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Below this folder, each of four steps of accumulated batches: ``one`` process without sharding; ``sharded`` over
    two with half the batch; ``again``, gone on from the latter's second step; ``bf16``, of one step."""
    root = tmp_path_factory.mktemp("sharded")
    common = ["--trainer.max_epochs=4", "--trainer.max_steps=4", "--trainer.accumulate_grad_batches=2"]

    def arguments(name: str, *more: str) -> list[str]:
        return [*test_pretrain.arguments(data, root / name, *SHARDED, *common), *more]

    probes = [
        f"--probe.manifest={data.parent / 'corpus' / 'manifest.csv'}", "--probe.max_share=1",
        '--probe.labels={"classes": {"emotion": ["angry", "happy", "neutral"]}}',
    ]  # fmt: skip
    todo = [
        arguments("sharded", *probes, "--checkpoint.every_n_train_steps=2"),
        arguments("again", f"--ckpt_path={root / 'sharded/checkpoints/step00000002.ckpt'}"),
        arguments("bf16", "--trainer.max_steps=1", "--trainer.precision=bf16-mixed"),
    ]
    (root / "runs.json").write_text(json.dumps(todo))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.sharded_runs", str(root)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
    ) as both:  # fmt: skip
        assert main(test_pretrain.arguments(data, root / "one", "--data.batch_size=8", *probes, *common)) == 0
        error = both.communicate(timeout=240)[1]
    assert both.returncode == 0, error[-3000:]
    return root


def state(runs: Path, name: str, step: int = 4) -> dict[str, Any]:
    return torch.load(runs / name / "checkpoints" / f"step{step:08d}.ckpt", weights_only=True)


def test_losses_gradient_norms_and_weights_are_those_of_one_process(runs: Path) -> None:
    one, sharded = curve(runs / "one"), curve(runs / "sharded")
    assert sorted(sharded) == list(range(1, 5))
    for step in one:
        assert sharded[step] == pytest.approx(one[step], rel=1e-5), f"step {step}"
    norms = [[float(row["grad_norm"]) for row in lines(runs / name)] for name in ("sharded", "one")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    ours, theirs = weights(runs / "sharded"), weights(runs / "one")
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in theirs)


def test_probes_are_of_whole_weights_and_once_for_both(runs: Path) -> None:
    one, sharded = (
        {(row.step, row.part, row.metric): row.value for row in read_probes(runs / name / "probes.csv")}
        for name in ("one", "sharded")
    )
    assert {step for step, _, _ in sharded} == {0, 2, 4}  # before, after each epoch
    assert sharded.keys() == one.keys()
    for key, value in one.items():
        if key[2] in ("alignment", "uniformity", "effective_rank"):  # the others count, or measure time
            assert sharded[key] == pytest.approx(value, rel=1e-3, abs=1e-5), key


def test_a_checkpoint_is_what_one_process_writes(runs: Path) -> None:
    ours, theirs = state(runs, "sharded"), state(runs, "one")
    assert ours.keys() == theirs.keys()
    ours, theirs = ours["optimizer_states"][0], theirs["optimizer_states"][0]
    assert [group["names"] for group in ours["param_groups"]] == [group["names"] for group in theirs["param_groups"]]
    assert {len(group["params"]) for group in ours["param_groups"]}.isdisjoint({0})
    decay = [(group["weight_decay"], len(group["params"])) for group in ours["param_groups"]]
    assert decay == [(group["weight_decay"], len(group["params"])) for group in theirs["param_groups"]]
    for index, moments in theirs["state"].items():
        for name, value in moments.items():
            assert torch.allclose(ours["state"][index][name], value, atol=1e-6), (index, name)


def test_it_loads_into_a_plain_model_and_so_does_the_export(runs: Path) -> None:
    trained = weights(runs / "sharded")
    config = hicmae.ModelConfig.preset("micro", **test_pretrain.SMALL)
    model = hicmae.HiCMAE(config)
    model.load_state_dict({name.removeprefix("model."): value for name, value in trained.items()})
    backbone, _ = hicmae.load_backbone(runs / "sharded" / "export")
    assert all(torch.equal(v, trained[f"model.backbone.{k}"]) for k, v in backbone.state_dict().items())


def test_going_on_is_exact(runs: Path) -> None:
    assert curve(runs / "again") == {step: losses for step, losses in curve(runs / "sharded").items() if step > 2}
    ours, theirs = state(runs, "again"), state(runs, "sharded")
    assert all(torch.equal(ours["state_dict"][name], value) for name, value in theirs["state_dict"].items())
    ours, theirs = (one["optimizer_states"][0]["state"] for one in (ours, theirs))
    assert all(torch.equal(ours[i][name], value) for i, one in theirs.items() for name, value in one.items())


def test_one_process_without_sharding_goes_on_from_it(runs: Path, data: Path, tmp_path: Path) -> None:
    path = runs / "sharded" / "checkpoints" / "step00000002.ckpt"
    assert main(test_pretrain.arguments(
        data, tmp_path, "--data.batch_size=8", "--trainer.accumulate_grad_batches=2", "--trainer.max_epochs=4",
        "--trainer.max_steps=3", f"--ckpt_path={path}",
    )) == 0  # fmt: skip
    assert curve(tmp_path)[3] == pytest.approx(curve(runs / "sharded")[3], abs=1e-4)


def test_bf16_stays_near_float32(runs: Path) -> None:
    assert curve(runs / "bf16")[1] == pytest.approx(curve(runs / "one")[1], rel=0.02)
    assert curve(runs / "bf16")[1] != pytest.approx(curve(runs / "one")[1], rel=1e-5)
    assert all(value.dtype == torch.float32 for value in weights(runs / "bf16").values())


def test_a_step_sends_what_the_formulas_say(runs: Path) -> None:
    with torch.device("meta"):
        model = hicmae.HiCMAE(TINY)
    found = json.loads((runs / "traffic.json").read_text())
    assert found.keys() == WAYS.keys()

    def order(one: dict[str, Any]) -> list[str]:
        return [one["kind"], one["what"]]

    for way, (traffic, loss) in found.items():
        formula = [dataclasses.asdict(one) for one in expected(model, way, ranks=2, batch=BATCH)]
        assert sorted(traffic, key=order) == sorted(formula, key=order), way
        assert loss == pytest.approx(found["ddp"][1], rel=0.02 if way.startswith("sharded_bf16") else 1e-6), way


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[DeviceMesh]:
    """A group of this process alone: nothing is sent, but all hooks of sharing out are there."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def gradients(model: hicmae.HiCMAE) -> dict[str, torch.Tensor | None]:
    return {name: whole_state({"": p.grad}, keep=True)[""] for name, p in model.named_parameters()}


def test_batches_that_are_accumulated_exchange_no_gradients_before_the_last(lone: DeviceMesh) -> None:
    strategy, plain = ShardedStrategy(), pretraining_model()
    strategy._lightning_module = SimpleNamespace(model=pretraining_model())  # type: ignore[assignment]
    model = strategy._lightning_module.model
    shard(model, lone)
    with strategy.block_backward_sync():
        model(*pretraining_batch(2)).loss.backward()
    assert set(gradients(model).values()) == {None}
    model(*pretraining_batch(2, seed=1)).loss.backward()
    for seed in (0, 1):
        plain(*pretraining_batch(2, seed=seed)).loss.backward()
    found = gradients(model)
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(found[name], gradient, msg=name)


def test_compiled_blocks_have_the_same_gradients(lone: DeviceMesh) -> None:
    torch._dynamo.reset()
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    torch.manual_seed(0)
    plain = hicmae.HiCMAE(SHALLOW)
    compiled = copy.deepcopy(plain)
    shard(compiled, lone)
    accelerate(compiled, SpeedConfig(compile="blocks"), "cpu", backend="eager")
    for model in (plain, compiled):
        model(*pretraining_batch(2)).loss.backward()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > graphs
    torch._dynamo.reset()
    found = gradients(compiled)
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(found[name], gradient, msg=name)


# ---------------------------------------------------------------- what does not go


@pytest.mark.parametrize(
    ("job", "setting", "message"),
    [
        ("pretrain", "--trainer.precision=64-true", "trainer.precision=64-true does not go with"),
        ("pretrain", "--model.speed.compile=whole", "model.speed.compile=whole does not go with"),
        ("finetune", "--trainer.max_epochs=1", "is for pre-training alone"),
    ],
)
def test_what_does_not_go_with_it_ends_with_one_line(job, setting, message, data, tmp_path, capsys) -> None:
    module = {"pretrain": test_pretrain, "finetune": test_finetune}[job]
    path = {"pretrain": data, "finetune": data.parent / "corpus" / "manifest.csv"}[job]
    assert module.main(module.arguments(path, tmp_path, "--trainer.strategy=sharded", setting)) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_it_trains_saves_goes_on_and_exports(data: Path, tmp_path: Path) -> None:
    gpu = ["--trainer.accelerator=gpu", "--trainer.strategy=sharded", "--trainer.precision=bf16-mixed"]
    assert main(test_pretrain.arguments(data, tmp_path, *gpu, "--trainer.max_steps=2")) == 0
    assert main(test_pretrain.arguments(data, tmp_path, *gpu, "--trainer.max_steps=4", "--ckpt_path=auto")) == 0
    trained = weights(tmp_path)
    backbone, _ = hicmae.load_backbone(tmp_path / "export")
    assert all(torch.equal(v, trained[f"model.backbone.{k}"].cpu()) for k, v in backbone.state_dict().items())
