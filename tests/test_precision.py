"""What a job computes in, by what its device can do."""

from __future__ import annotations

import logging

import pytest
import torch

from hicmae.training.precision import has_bfloat16, usable_precision


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A GPU whose ``capability`` the test may change; as PyTorch does, it emulates bfloat16 if asked for that too."""
    about: dict[str, object] = {"capability": (7, 0)}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: about["capability"])

    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or about["capability"] >= (8, 0)  # type: ignore[operator]

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    return about


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_gpu_that_emulates_bfloat16_takes_float16_and_says_so_once(gpu, caplog) -> None:
    assert not has_bfloat16()
    assert usable_precision("bf16-mixed", "auto") == "16-mixed"
    (said,) = warnings(caplog)
    for part in ("Tesla V100 has no bfloat16", "16-mixed instead", "a step is left out", "or 32-true for float32"):
        assert part in said


def test_an_older_gpu_takes_float32(gpu, caplog) -> None:
    gpu["capability"] = (6, 1)
    assert usable_precision("bf16-mixed", "gpu") == "32-true"
    assert "twice the memory" in warnings(caplog)[0]


def test_a_gpu_with_bfloat16_takes_it(gpu, caplog) -> None:
    gpu["capability"] = (8, 0)
    assert usable_precision("bf16-mixed", "auto") == "bf16-mixed"
    assert has_bfloat16()
    assert not warnings(caplog)


def test_a_processor_takes_float32_even_beside_a_gpu(gpu, caplog) -> None:
    gpu["capability"] = (8, 0)
    assert usable_precision("bf16-mixed", "cpu") == "32-true"
    assert "trainer.precision=32-true to do without this warning" in warnings(caplog)[0]


@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "64"])
def test_what_is_not_bfloat16_is_left_alone(gpu, caplog, precision: str) -> None:
    assert usable_precision(precision, "auto") == precision
    assert not warnings(caplog)
