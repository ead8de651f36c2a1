"""Settings of the whole test run."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

from tests.alone import in_turn

# The models of the tests are too small to gain from threads, and idle threads of several processes that wait for
# each other cost minutes on a small machine. Spawned processes inherit this. It must be set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

# The same examples every time, so that a change is judged by what it changed; HICMAE_FUZZ=1 looks for new ones.
settings.register_profile("steady", derandomize=True)
if not os.environ.get("HICMAE_FUZZ"):
    settings.load_profile("steady")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Tests of processes that run beside this one wait for those marked ``alone``, and the other way round."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    # Each process has a folder of its own in that of the run.
    run = item.config._tmp_path_factory.getbasetemp().parent  # type: ignore[attr-defined]
    with in_turn(run, alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.fixture(autouse=True)
def _threads_as_they_were() -> Iterator[None]:
    """A test that sets the number of torch's threads sets it for itself: with others, sums round otherwise."""
    before = torch.get_num_threads()
    yield
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)
