"""The attention kernel that a job runs, as it is told at its start."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from hicmae.config import ModelConfig
from hicmae.training.attention_report import AttentionReport, attention_kernel, report_attention

BASE = ModelConfig.preset("base")
HERE = torch.device("cpu")


def said(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == level]


def report(*, decodes: bool) -> None:
    report_attention(BASE, decodes=decodes, tokens=800, dtype=torch.bfloat16, device=HERE)


def test_it_is_the_kernel_that_pytorch_chooses() -> None:
    for backend, name in ((SDPBackend.MATH, "math"), (SDPBackend.FLASH_ATTENTION, "flash")):
        with sdpa_kernel(backend):
            assert attention_kernel(2, 64, 8, torch.float32, HERE) == name


def test_fused_kernels_are_named_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), caplog.at_level(logging.INFO):
        report(decodes=True)
    assert said(caplog, logging.INFO) == [
        "attention kernels: encoder flash (heads of 64, bfloat16), decoder flash (heads of 64, bfloat16)"
    ]
    assert not said(caplog, logging.WARNING)


@pytest.mark.parametrize(
    ("decodes", "cost"),
    [
        (True, "decoder heads of 64 in bfloat16 on this GPU: every attention writes its matrix, 6 x 800 x 800 numbers "
               "or 7.7 MB a clip and layer, of which 4 decoder layers keep 31 MB a clip"),
        (False, "encoder heads of 64 in bfloat16 on this GPU: every attention writes its matrix, 8 x 800 x 800 numbers "
                "or 10.2 MB a clip and layer, of which 10 encoder layers keep 102 MB a clip"),
    ],
)  # fmt: skip
def test_a_warning_says_what_the_matrices_take(caplog: pytest.LogCaptureFixture, decodes: bool, cost: str) -> None:
    with sdpa_kernel(SDPBackend.MATH):
        report(decodes=decodes)
    (warning,) = said(caplog, logging.WARNING)
    assert cost in warning


def test_a_processor_and_other_ranks_report_nothing(caplog: pytest.LogCaptureFixture) -> None:
    trainer: Any = SimpleNamespace(is_global_zero=False, precision="bf16-mixed")
    with caplog.at_level(logging.INFO):
        AttentionReport().on_fit_start(trainer, SimpleNamespace(device=torch.device("cuda")))  # type: ignore[arg-type]
        trainer.is_global_zero = True
        AttentionReport().on_fit_start(trainer, SimpleNamespace(device=HERE))  # type: ignore[arg-type]
    assert not caplog.records
