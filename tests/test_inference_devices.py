"""Where the processes of a job compute, on machines that are not at hand."""

from __future__ import annotations

import os

import pytest
import torch

from hicmae.inference.devices import job_devices, kinds_of


@pytest.mark.parametrize(
    ("gpus", "cores", "device", "workers", "expected"),
    [
        (0, 16, "auto", None, ["cpu"] * 8),
        (0, 2, "auto", None, ["cpu"] * 2),
        (2, 16, "auto", None, ["cuda:0", "cuda:1"] * 4),
        (2, 6, "cuda", None, ["cuda:0", "cuda:1"] * 3),
        (4, 2, "cuda", None, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        (4, 16, "cuda:2", None, ["cuda:2"] * 4),
        (2, 16, "auto", 3, ["cuda:0", "cuda:1", "cuda:0"]),
        (2, 16, "cpu", 1, ["cpu"]),
    ],
)
def test_processes_share_devices_and_cores(
    gpus: int, cores: int, device: str, workers: int | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    assert job_devices(device, workers) == expected
    assert kinds_of(expected) == expected[0].split(":")[0]
