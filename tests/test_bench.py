"""``hicmae bench``: what it times, what it makes of it, and that it notices code that has become slower."""

from __future__ import annotations

import dataclasses
import inspect
import json
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from finetune.module import RECIPE, FinetuneModule
from hicmae import config as config_module
from hicmae.bench import end_to_end, memory, run, stages, trace
from hicmae.bench.batch import SyntheticBatch
from hicmae.bench.batch_size import best_batch, fits
from hicmae.bench.compare import Change, changes, check_comparable
from hicmae.bench.footage import Footage
from hicmae.bench.measure import MatrixProduct, Spread, matrix_peak, timed
from hicmae.bench.result import BenchResult, Row, Versus
from hicmae.bench.run import measure
from hicmae.bench.settings import STAGES, BenchSettings, known_stages
from hicmae.bench.stages import run_stage
from hicmae.bench.steps import FINETUNING, finetuning_steps, macs_per_clip, pretraining_steps, stage_step
from hicmae.bench.table import as_markdown, as_text
from hicmae.cli import main
from hicmae.data.clip_decoder import ClipDecoder
from hicmae.layers import Block
from hicmae.speed import THRIFTY
from tests.corpus import make_corpus
from tests.tiny_model import TINY

CPU = torch.device("cpu")
TINY_FIELDS = {k: v for k, v in TINY.to_dict().items() if v != getattr(config_module.ModelConfig(), k)}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> BenchSettings:
    """Settings of milliseconds: the preset ``micro`` is a far smaller model here, and so is the matrix product."""
    monkeypatch.setitem(config_module.PRESETS, "micro", TINY_FIELDS)
    monkeypatch.setattr("hicmae.bench.measure.PROCESSOR_SIZE", 384)
    monkeypatch.setattr("hicmae.bench.stages.peak_memory", lambda *args: 10**6)
    monkeypatch.setattr("hicmae.bench.footage._cores", lambda: 1)
    monkeypatch.setattr("hicmae.bench.stages.LOADED", 8)
    return BenchSettings(preset="micro", batch=2, rounds=15, seconds=0.0, workers=0)


class SmallFootage(Footage):
    """Clips of 48 x 48 pixels, copies of two."""

    @cached_property
    def manifest(self) -> Path:
        return make_corpus(self.folder / "corpus", self.clips).path


def row(name: str, seconds: Sequence[float], matrix: float = 1e12, **fields: Any) -> Row:
    """A stage of one clip a round."""
    return Row(name=name, clips=1, seconds=tuple(seconds), matrix_flops=(matrix,) * len(seconds), **fields)


# ------------------------------------------------------------------------------------------------- timing


def test_steps_take_turns_and_the_first_round_is_not_counted() -> None:
    called: list[str] = []
    taken = timed({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, rounds=3, device=CPU)
    assert "".join(called) == "ab" + "ab" + "ba" + "ab"
    assert [len(times) for times in taken.values()] == [3, 3]
    with pytest.raises(ValueError, match="rounds=0"):
        timed({}, rounds=0, device=CPU)


def test_rounds_go_on_for_the_seconds_given(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def step() -> None:
        now[0] += 0.25

    monkeypatch.setattr("hicmae.bench.measure.time", SimpleNamespace(perf_counter=lambda: now[0]))
    taken = timed({"a": step}, rounds=2, device=CPU, seconds=2.0, clock=lambda: now[0])
    assert taken["a"] == [0.25] * 8
    assert len(timed({"a": step}, rounds=2, device=CPU, clock=lambda: now[0])["a"]) == 2


def test_the_matrix_product_counts_its_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hicmae.bench.measure.PROCESSOR_SIZE", 64)
    product = MatrixProduct(CPU, torch.float32)
    assert product.flops % (2 * 64**3) == 0
    monkeypatch.setattr("hicmae.bench.measure.timed", lambda steps, **options: {name: [1.0, 0.5] for name in steps})
    assert matrix_peak(CPU, torch.float32) == product.flops / 0.5


def test_one_bad_round_does_not_widen_the_error() -> None:
    steady = Spread.of([1.0, 1.01, 0.99, 1.02, 0.98])
    disturbed = Spread.of([1.0, 1.01, 0.99, 1.02, 9.0])
    assert disturbed.error < 2 * steady.error
    assert (disturbed.low, disturbed.high, disturbed.median) == (0.99, 9.0, 1.01)


# ------------------------------------------------------------------------------------------------- steps


def test_a_whole_step_changes_weights_and_its_part_does_not(small: BenchSettings) -> None:
    batch = SyntheticBatch.make(small.config, 2, CPU)
    for make in (pretraining_steps, finetuning_steps):
        steps = make(small, batch)
        trained = [p for p in steps.model.parameters() if p.requires_grad]
        before = [p.detach().clone() for p in trained]
        part = steps.forward_backward()
        assert all(p.grad is not None for p in trained)
        assert all(torch.equal(a, b) for a, b in zip(before, trained, strict=True))
        steps.whole()  # the first step of the warm-up has a rate of zero
        assert torch.isfinite(steps.whole())
        assert torch.isfinite(part)
        assert sum(not torch.equal(a, b) for a, b in zip(before, trained, strict=True)) > len(trained) / 2


def test_the_recipe_is_that_of_the_job() -> None:
    assert FINETUNING == RECIPE
    assert inspect.signature(FinetuneModule).parameters["speed"].default == THRIFTY


def test_the_batch_is_the_same_every_time_and_masked_as_in_the_paper() -> None:
    base = config_module.ModelConfig.preset("base")
    one, other = (SyntheticBatch.make(base, 1, CPU) for _ in range(2))
    assert torch.equal(one.video, other.video)
    assert torch.equal(one.video_visible, other.video_visible)
    assert (one.video_visible.shape, one.audio_visible.shape) == ((1, 80), (1, 26))
    settings = BenchSettings(preset="base")
    assert macs_per_clip("pretrain", settings, one) == 14_350_139_392
    assert macs_per_clip("embed", settings, one) == 46_107_983_872


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "embed", "transform"])
def test_stages_on_the_device(stage: str, small: BenchSettings, tmp_path: Path) -> None:
    settings = dataclasses.replace(small, rounds=3)
    (found,) = run_stage(stage, settings, SmallFootage(tmp_path, settings.config, 2))
    assert (found.name, found.clips, len(found.seconds)) == (stage, 2, 3)
    assert found.peak_bytes == 10**6
    if stage == "transform":
        assert found.share_of_peak is None
    else:
        batch = SyntheticBatch.make(settings.config, 2, CPU)
        flops = macs_per_clip(stage, settings, batch) * (2 if stage == "embed" else 6) * 2
        shares = [flops / t / m for t, m in zip(found.seconds, found.matrix_flops, strict=True)]
        assert found.share_of_peak is not None
        assert found.share_of_peak.median == pytest.approx(sorted(shares)[1])


def test_bfloat16_reaches_the_products(small: BenchSettings) -> None:
    batch = SyntheticBatch.make(small.config, 2, CPU)
    seen: set[torch.dtype] = set()
    steps = pretraining_steps(dataclasses.replace(small, precision="bf16"), batch)
    steps.model.video_decoder.head.register_forward_hook(lambda module, given, out: seen.add(out.dtype))
    steps.forward_backward()
    assert seen == {torch.bfloat16}


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the steps ask of ``hicmae.speed``: settings and the kind of device."""
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        "hicmae.bench.steps.accelerate",
        lambda model, settings, kind: asked.append((settings.compile, settings.recompute, kind)),
    )
    return asked


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "embed"])
def test_models_are_sped_up_as_the_jobs_speed_them_up(
    stage: str, small: BenchSettings, speed: list[tuple[Any, ...]]
) -> None:
    settings = dataclasses.replace(small, compile="blocks", recompute="blocks")
    stage_step(stage, settings, SyntheticBatch.make(small.config, 1, CPU))
    assert speed == [("blocks", "blocks", "cpu")]
    stage_step(stage, small, SyntheticBatch.make(small.config, 1, CPU))
    usual = "pointwise" if stage == "finetune" else "none"
    assert speed[1] == ("auto", usual, "cpu")


# ------------------------------------------------------------------------------------------------- data


def test_decoding_and_loading(small: BenchSettings, tmp_path: Path) -> None:
    settings = dataclasses.replace(small, rounds=2)
    footage = SmallFootage(tmp_path, settings.config, settings.batch)
    names = [found.name for found in run_stage("decode", settings, footage)]
    assert names == ["decode, mp4 files", "decode, h264 shards"]
    (loader,) = run_stage("loader", settings, footage)
    assert (loader.name, loader.clips) == ("loader", 8)
    assert loader.batches_ready == 0.0  # decoded in this process


def test_the_whole_job_is_run_as_users_run_it(
    small: BenchSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job itself has tests of its own: here, what it is told and what is read of its log."""
    told: list[str] = []

    def fake(command: list[str], **options: Any) -> Any:
        told.extend(command)
        assert options["env"]["OMP_NUM_THREADS"] == "3"
        log = tmp_path / "job" / "logs" / "version_0"
        log.mkdir(parents=True)
        lines = ["step,clips_per_s,data_wait_percent,queue_depth"]
        lines += [f"{step},{step},{step / 10},1" for step in (1, 3, 6, 9, 12)]
        (log / "metrics.csv").write_text("\n".join(lines) + "\n")
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(end_to_end.subprocess, "run", fake)
    footage = SmallFootage(tmp_path, small.config, small.batch)
    settings = dataclasses.replace(small, threads=3, workers=2, compile="whole", recompute="blocks")
    (found,) = run_stage("end-to-end", settings, footage)
    assert found.seconds == (2 / 6, 2 / 9, 2 / 12)  # without the lines of the warm-up
    assert found.data_wait_percent == 0.9
    assert not (tmp_path / "job").exists()
    options = dict(zip(told[4::2], told[5::2], strict=True))
    assert told[1:4] == ["-m", "pretrain", "fit"]
    assert options["--model.preset"] == "micro"
    assert options["--data.num_workers"] == "2"
    assert options["--trainer.max_steps"] == "12"
    assert options["--trainer.precision"] == "32-true"
    assert (options["--model.speed.compile"], options["--model.speed.recompute"]) == ("whole", "blocks")

    monkeypatch.setattr(
        end_to_end.subprocess, "run", lambda *a, **o: SimpleNamespace(returncode=2, stderr="noise\nno such folder\n")
    )
    with pytest.raises(ValueError, match="job failed: no such folder"):
        run_stage("end-to-end", small, footage)


@pytest.mark.slow
def test_the_whole_job(tmp_path: Path) -> None:
    settings = BenchSettings(preset="micro", batch=2, workers=0)
    footage = SmallFootage(tmp_path, settings.config, settings.batch)
    lines = end_to_end.run_job(settings, footage.shards("h264"), tmp_path / "job", steps=4)
    assert len(lines) == 3
    assert all(line.clips_per_s > 0 and 0 < line.data_wait_percent < 100 for line in lines)


# ------------------------------------------------------------------------------------------------- memory


def test_memory_grows_by_what_a_step_holds() -> None:
    held: list[Any] = []

    def build() -> Callable[[], object]:
        held.append(np.ones(6_000_000))  # 48 MB stay, 64 MB come and go: more than the heap keeps
        return lambda: np.ones(8_000_000).sum()

    grown = memory.measure_growth(CPU, build)
    assert 105e6 < grown < 145e6


def test_memory_is_measured_in_a_process_of_its_own() -> None:
    settings = BenchSettings(preset="micro", batch=1)
    weights = 4 * sum(p.numel() for p in pretraining_steps(settings, SyntheticBatch.make(settings.config, 1, CPU))
                      .model.parameters())  # fmt: skip
    assert 4 * weights < memory.peak_memory("pretrain", settings) < 4 * weights + 300e6


def test_a_failing_process_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_here(command: list[str], **options: Any) -> Any:
        """As the process would, without its start."""
        try:
            memory._main(*command[3:])
        except ValueError as error:
            return SimpleNamespace(returncode=1, stderr=f"Traceback\nValueError: {error}\n")
        return SimpleNamespace(returncode=0, stdout="12\n")

    monkeypatch.setattr(memory.subprocess, "run", run_here)
    with pytest.raises(ValueError, match=r"memory of decode could not be measured: .*no step on the device"):
        memory.peak_memory("decode", BenchSettings(preset="micro", batch=1))
    assert memory.peak_memory("transform", BenchSettings(preset="micro", batch=1)) == 12


# ------------------------------------------------------------------------------------------------- slower?


def unchanged_at_last(stage: str, settings: BenchSettings, footage: Footage, baseline: BenchResult) -> Change:
    """Measure until the stage is not found slower, three times at most: others on the machine may disturb one."""
    for _ in range(3):
        (change,) = changes(baseline, tuple(run_stage(stage, settings, footage)))
        if not change.slower:
            break
    return change


@pytest.fixture
def planted_layers(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def plant() -> None:
        once = Block.forward

        def slow(self: Block, x: torch.Tensor, **options: Any) -> torch.Tensor:
            return once(self, once(self, once(self, once(self, x))), **options)

        monkeypatch.setattr(Block, "forward", slow)

    return plant


@pytest.fixture
def planted_loop(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def plant() -> None:
        once = ClipDecoder.__call__

        def busy(self: ClipDecoder, *args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            decoded = once(self, *args, **options)
            until = time.perf_counter() + 2 * (time.perf_counter() - began)
            while time.perf_counter() < until:
                pass
            return decoded

        monkeypatch.setattr(ClipDecoder, "__call__", busy)

    return plant


@pytest.mark.alone
@pytest.mark.parametrize(("stage", "slowdown"), [("pretrain", "planted_layers"), ("loader", "planted_loop")])
def test_a_planted_slowdown_is_noticed_and_an_unchanged_stage_passes(
    stage: str, slowdown: str, small: BenchSettings, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    settings = small if stage == "pretrain" else dataclasses.replace(small, rounds=5)
    footage = SmallFootage(tmp_path, settings.config, settings.batch)
    baseline = BenchResult.now(settings, "hicmae bench", run_stage(stage, settings, footage))
    same = unchanged_at_last(stage, settings, footage, baseline)
    assert not same.slower, str(same)
    request.getfixturevalue(slowdown)()
    (planted,) = changes(baseline, tuple(run_stage(stage, settings, footage)))  # three times the time: at once
    assert planted.slower, str(planted)
    assert planted.factor > 1.5, str(planted)


def test_noise_is_allowed_what_it_needs_and_ten_percent() -> None:
    def change(before: Sequence[float], now: Sequence[float]) -> Change:
        first, second = row("a", before), row("a", now)
        return Change(name="a", before=first.relative, now=second.relative, flops_per_clip=None)

    assert not change([1.0] * 5, [1.09] * 5).slower
    assert change([1.0] * 5, [1.12] * 5).slower
    assert not change([1.0] * 5, [0.5] * 5).slower
    noisy = change([1.0, 1.2, 0.8, 1.3, 0.7], [1.2, 1.5, 0.9, 1.0, 1.4])
    assert noisy.allowed > 1.3
    assert not noisy.slower


def test_a_slower_machine_is_not_slower_code() -> None:
    then = BenchResult.now(BenchSettings(), "", [row("a", [1.0] * 5, matrix=1e12)])
    (change,) = changes(then, (row("a", [3.0] * 5, matrix=1e12 / 3),))
    assert change.factor == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (dict(preset="micro"), "preset was 'micro' and is 'base'"),
        (dict(batch=8), "batch was 8 and is 4"),
        (dict(threads=7), "threads was 7 and is 1"),
        (dict(precision="bf16"), "precision was 'bf16' and is 'fp32'"),
    ],
)
def test_another_baseline_is_refused(other: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_comparable(BenchResult.now(BenchSettings(**other), "", []), BenchSettings())


def test_a_baseline_of_another_machine_or_stage_is_refused() -> None:
    here = BenchResult.now(BenchSettings(), "", [row("pretrain", [1.0])])
    check_comparable(here, BenchSettings())
    with pytest.raises(ValueError, match="device was 'H100'"):
        check_comparable(dataclasses.replace(here, machine=here.machine | {"device": "H100"}), BenchSettings())
    with pytest.raises(ValueError, match=r"none of the stages .* it has pretrain"):
        changes(here, (row("embed", [1.0]),))


# ------------------------------------------------------------------------------------------------- batches


def memory_of(limit: int) -> Callable[[int], None]:
    """Something that fits up to a batch."""

    def use(batch: int) -> None:
        if batch > limit:
            raise torch.OutOfMemoryError("full")

    return use


def test_a_batch_fits_until_the_memory_is_full() -> None:
    assert [fits(memory_of(5), batch) for batch in (1, 5, 6)] == [True, True, False]


def test_the_best_batch_stops_at_the_memory_or_where_it_is_no_faster() -> None:
    def clips_per_s(batch: int) -> float:
        memory_of(40)(batch)
        return float(batch)

    assert best_batch(clips_per_s) == 32
    tried: list[int] = []
    assert best_batch(lambda batch: tried.append(batch) or min(batch, 16.0)) == 16
    assert tried == [4, 8, 16, 32]
    assert best_batch(lambda batch: 100.0 / batch) == 4
    with pytest.raises(ValueError, match="not even a batch of 4"):
        best_batch(memory_of(3))  # type: ignore[arg-type]


def test_a_batch_that_does_not_fit_names_the_one_that_does(
    small: BenchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(stage: str, settings: BenchSettings, batch: SyntheticBatch) -> Callable[[], object]:
        memory_of(5)(len(batch))
        return stage_step(stage, settings, batch)

    monkeypatch.setattr(stages, "stage_step", step)
    monkeypatch.setattr(run, "stage_step", step)
    with pytest.raises(ValueError, match=r"--batch 9 does not fit .*\(embed\): the largest that fits is 5"):
        measure(dataclasses.replace(small, batch=9), ["embed"])
    with pytest.raises(ValueError, match="on a processor give a number"):
        measure(small, ["embed"], best=True)


# ------------------------------------------------------------------------------------------------- trace


def test_a_trace_names_what_the_host_waits_for(tmp_path: Path) -> None:
    x = torch.randn(1, 2, 8, 4, requires_grad=True)

    def clean() -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(x, x, x).sum()

    found = trace.trace(clean, tmp_path / "clean.json", device=CPU)
    assert not found.waits
    assert any("scaled_dot_product" in name for name in found.attention)
    assert "traceEvents" in json.loads((tmp_path / "clean.json").read_text())
    waiting = trace.trace(lambda: clean().item(), tmp_path / "waiting.json", device=CPU)
    assert waiting.waits == {"aten::item": trace.STEPS}
    assert "aten::item 3" in trace.describe(waiting, Path("t.json"), on_gpu=False)


def test_waits_of_a_gpu_are_told_from_the_profilers_own() -> None:
    def event(name: str, start: float, parent: Any = None) -> Any:
        return SimpleNamespace(name=name, time_range=SimpleNamespace(start=start, end=start + 5), cpu_parent=parent)

    step = event("hicmae bench step", 10)
    item = event("aten::item", 11, step)
    found = trace._report(
        [
            step,
            item,
            event("cudaStreamSynchronize", 12, event("aten::_local_scalar_dense", 12, item)),  # within the item
            event("Memcpy DtoH (Device -> Pageable)", 13),
            event("cudaLaunchKernel", 13),
            event("cudaDeviceSynchronize", 30),  # after the step: the profiler's
            event("pytorch_flash::flash_fwd_kernel", 14),
        ]
    )
    assert found.waits == {"aten::item": 1, "Memcpy DtoH (Device -> Pageable)": 1}
    assert found.attention == ("pytorch_flash::flash_fwd_kernel",)


def test_the_training_step_waits_for_nothing(
    small: BenchSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "STEPS", 1)
    batch = SyntheticBatch.make(small.config, 2, CPU)
    for stage in ("pretrain", "finetune"):
        found = trace.trace(stage_step(stage, small, batch), tmp_path / "trace.json", device=CPU)
        assert not found.waits


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_gpus_step_waits_for_nothing_and_has_kernels_of_attention(stage: str, tmp_path: Path) -> None:
    settings = BenchSettings(preset="tiny", batch=4, device="cuda", precision="bf16", compile="off")
    step = stage_step(stage, settings, SyntheticBatch.make(settings.config, 4, settings.torch_device))
    found = trace.trace(step, tmp_path / "trace.json", device=settings.torch_device)
    assert not found.waits
    assert any("flash" in name or "fmha" in name for name in found.attention if not name.startswith("aten::"))
    assert memory.peak_memory(stage, settings) > 4 * 4 * 15e6  # weights, gradients and two moments of 15 M at least


# ------------------------------------------------------------------------------------------------- the command


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    pair = Versus(name="pretrain, whole step", ours_seconds=(1.0, 2.0), theirs_seconds=(2.0, 5.0), ours_peak_bytes=5)
    rows = [row("pretrain", [1.0, 2.0], flops_per_clip=10**11, peak_bytes=7, data_wait_percent=1.5)]
    result = BenchResult.now(BenchSettings(), "hicmae bench --x", rows, [pair])
    assert BenchResult.read(result.write(tmp_path / "bench.json")) == result
    values = json.loads((tmp_path / "bench.json").read_text())
    assert values["rows"][0]["share_of_peak"]["high"] == pytest.approx(0.1)
    assert values["versus"][0]["ratio"]["median"] == pytest.approx(0.45)
    values["schema"] += 1
    (tmp_path / "bench.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="schema 2, this version reads 1"):
        BenchResult.read(tmp_path / "bench.json")


def test_a_baseline_of_a_gpu_is_read_and_a_damaged_one_refused(tmp_path: Path) -> None:
    there = BenchSettings(device="cuda", precision="bf16")  # on any machine: nothing is computed
    path = dataclasses.replace(BenchResult.now(BenchSettings(), "", []), settings=there).write(tmp_path / "bench.json")
    values = json.loads(path.read_text())
    assert BenchResult.read(path).settings == there
    with pytest.raises(ValueError, match="precision was 'bf16' and is 'fp32'"):
        check_comparable(BenchResult.read(path), BenchSettings())
    for broken in ({"schema": 1}, values | {"rows": [{}]}, values | {"settings": {"of_tomorrow": 1}}):
        path.write_text(json.dumps(broken))
        with pytest.raises(ValueError, match="of another version, or damaged"):
            BenchResult.read(path)


def test_a_baseline_without_the_stages_is_refused_before_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hicmae.bench.run.measure", lambda *args, **options: pytest.fail("measured"))
    rows = [row("decode, mp4 files", [1.0])]
    path = BenchResult.now(BenchSettings(), "", rows).write(tmp_path / "bench.json")
    assert main(["bench", "--device", "cpu", "--stages", "embed", "--baseline", str(path)]) == 2
    assert "none of the stages embed; it has decode, mp4 files" in capsys.readouterr().err


def test_tables() -> None:
    pair = Versus(
        name="pretrain, whole step", ours_seconds=(1.0, 1.0), theirs_seconds=(2.0, 4.0), ours_peak_bytes=2 * 10**9
    )
    rows = [
        row("pretrain", [0.1, 0.2, 0.3], flops_per_clip=10**11, peak_bytes=7_000_000, data_wait_percent=1.5),
        row("loader", [0.001], batches_ready=2.0),
    ]
    result = BenchResult.now(BenchSettings(), "hicmae bench", rows, [pair])
    for text in (as_text(result), as_markdown(result)):
        for shown in ("7 MB", "50%", "(33 to 100)", "500 GFLOP/s", "data-wait 1.5%", "2.0 batches ready", "2.00 GB",
                      "0.38", "(0.25 to 0.50)", "1000"):  # fmt: skip
            assert shown in text
    lines = as_text(result).splitlines()
    header = next(line for line in lines if line.startswith("stage"))
    first = next(line for line in lines if line.startswith("pretrain  "))
    assert header.index("clips/s") + len("clips/s") == first.index("5.00") + len("5.00")


@pytest.mark.alone
def test_the_command(
    small: BenchSettings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    planted_layers: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trace, "STEPS", 1)
    options = ["--preset", "micro", "--batch", "2", "--seconds", "0.3", "--threads", "1", "--stages", "pretrain"]
    assert main(["bench", *options, "--out", str(tmp_path / "out"), "--trace", str(tmp_path / "t.json")]) == 0
    shown = capsys.readouterr().out
    assert "of matrix peak" in shown
    assert "host waits" in shown
    assert (tmp_path / "t.json").stat().st_size > 0
    assert (tmp_path / "out" / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert "| pretrain |" in (tmp_path / "out" / "bench.md").read_text()
    baseline = ["--baseline", str(tmp_path / "out" / "bench.json")]
    planted_layers()
    assert main(["bench", *options, *baseline]) == 1
    assert "slower: pretrain: " in capsys.readouterr().out
    assert main(["bench", *options[2:], "--preset", "mini", *baseline]) == 2
    assert "preset was 'micro' and is 'mini'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stages", "compared"), [([], ["pretrain", "finetune"]), (["--stages", "embed,pretrain"], ["pretrain"])]
)
def test_against_takes_the_training_stages(
    stages: list[str], compared: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[str] = []
    pair = Versus(name="a pair", ours_seconds=(1.0,), theirs_seconds=(4.0,))
    monkeypatch.setattr("hicmae.bench.versus.check_reference", lambda path, settings: measured.append(path))
    monkeypatch.setattr("hicmae.bench.versus.versus", lambda path, stage, settings: measured.append(stage) or [pair])
    monkeypatch.setattr(
        "hicmae.bench.run.measure",
        lambda settings, stages, **options: (settings, [row(name, [1.0]) for name in stages]),
    )
    assert main(["bench", "--device", "cpu", "--against", "a/checkout", *stages]) == 0
    assert measured == ["a/checkout", *compared]
    shown = capsys.readouterr().out
    assert "0.25" in shown
    assert ("embed" in shown) == bool(stages)


def test_both_models_may_be_too_much_for_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hicmae.bench.versus.check_reference", lambda path, settings: None)
    monkeypatch.setattr("hicmae.bench.versus.versus", lambda path, stage, settings: memory_of(3)(settings.batch))
    assert main(["bench", "--device", "cpu", "--against", "a/checkout"]) == 2
    assert "--batch 4 does not fit into the GPU's memory with both models (pretrain)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--stages", "nothing"], "nothing is no stage; choose among decode"),
        (["--stages", ","], "none is no stage"),
        (["--batch", "many"], "must be a number of clips, or best"),
        (["--batch", "0"], "batch=0 must be at least 1"),
        (["--batch", "best", "--device", "cpu"], "on a processor give a number"),
        (["--preset", "huge"], "unknown preset 'huge'"),
        (["--rounds", "0"], "rounds=0"),
        (["--against", ".", "--stages", "embed"], "--stages embed has neither"),
        (["--against", ".", "--precision", "bf16", "--device", "cpu"], "ours is compared in fp32"),
        (["--against", "nowhere", "--device", "cpu"], "nowhere"),
        (["--baseline", "nowhere.json"], "nowhere.json is not there"),
        (["--baseline", "pyproject.toml"], "was not written by hicmae bench"),
    ],
)
def test_what_a_user_gets_wrong(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *options]) == 2
    assert said in capsys.readouterr().err


def test_stages_are_run_in_their_order() -> None:
    assert known_stages("embed, decode") == ("decode", "embed")
    assert known_stages(",".join(STAGES)) == STAGES
