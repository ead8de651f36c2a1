"""Tests marked ``alone`` run beside no other."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

_TURNS = """
import sys, time
from pathlib import Path
from tests.alone import in_turn

folder, alone = Path(sys.argv[1]), sys.argv[2] == "alone"
while True:
    with in_turn(folder, alone=alone):
        begin = time.monotonic_ns()
        time.sleep(0.1)
        print(begin, time.monotonic_ns(), flush=True)
    if alone or (folder / "enough").exists():
        break
"""


def _start(folder: Path, what: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", _TURNS, str(folder), what], stdout=subprocess.PIPE, text=True)


def _spans(job: subprocess.Popen[str]) -> list[tuple[int, int]]:
    lines = job.communicate(timeout=20)[0].splitlines()
    assert job.returncode == 0
    return [(int(begin), int(end)) for begin, end in map(str.split, lines)]


def test_nothing_runs_beside_one_who_is_alone_and_its_turn_comes(tmp_path: Path) -> None:
    others = [_start(tmp_path, "beside") for _ in range(4)]
    alone = None
    try:
        for job in others:
            assert job.stdout is not None
            job.stdout.readline()  # all run
        alone = _start(tmp_path, "alone")
        ((begin, end),) = _spans(alone)  # in vain if the others could follow one another for ever
        (tmp_path / "enough").touch()
        spans = [span for job in others for span in _spans(job)]
    finally:
        for job in others if alone is None else [*others, alone]:
            job.kill()
    spans.sort()
    assert any(one[1] > following[0] for one, following in pairwise(spans)), "others run beside one another"
    assert all(one[1] <= begin or one[0] >= end for one in spans)
