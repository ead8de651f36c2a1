"""How folds share the devices of a machine."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from finetune.device_slots import device_slots


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def shown(slots: list[dict[str, str]]) -> list[str | None]:
    return [slot.get("CUDA_VISIBLE_DEVICES") for slot in slots]


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("parallel", "devices", "expected"),
    [
        (None, 1, ["0", "1", "2", "3"]),
        (None, "2", ["0,1", "2,3"]),
        (None, 3, ["0,1,2"]),
        (2, 1, ["0", "1"]),
        (None, "auto", ["0,1,2,3"]),
        (None, -1, ["0,1,2,3"]),
        (2, "auto", ["0,1", "2,3"]),
        (None, [1, 3], [None]),
    ],
)
def test_gpus_are_shared_out(parallel: int | None, devices: Any, expected: list[str | None]) -> None:
    assert shown(device_slots(parallel, accelerator="auto", devices=devices)) == expected


@pytest.mark.usefixtures("four_gpus")
def test_gpus_that_are_hidden_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5f")
    assert shown(device_slots(None, accelerator="gpu", devices=1)) == ["2", "GPU-5f"]


def test_on_a_processor_folds_follow_one_another_unless_told_otherwise() -> None:
    assert device_slots(None, accelerator="cpu", devices=1) == [{}]
    assert device_slots(3, accelerator="cpu", devices="auto") == [{}, {}, {}]


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("parallel", "devices", "message"),
    [
        (3, 2, "3 folds at once with 2 GPUs each need 6, and 4 are there"),
        (None, 8, "need 8, and 4 are there"),
        (5, "auto", "need 5, and 4 are there"),
        (2, [0, 1], "chooses devices by number"),
        (0, 1, "must be at least 1"),
    ],
)
def test_what_the_machine_does_not_have(parallel: int | None, devices: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        device_slots(parallel, accelerator="cuda", devices=devices)
