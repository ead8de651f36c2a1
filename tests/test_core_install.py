"""What users of a model run needs nothing beyond the core (``make test-core`` shows it in a real environment)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import core_install


def test_the_readmes_lines_and_commands_need_the_core_alone(tmp_path: Path) -> None:
    core_install.make(tmp_path)
    script = [sys.executable, core_install.__file__, "check", str(tmp_path), "--hide-extras"]
    environment = os.environ | {"PYTHONPATH": str(Path(core_install.__file__).parent.parent)}
    done = subprocess.run(script, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    for what in ("the README's lines", "hicmae embed, row 0, pooled", "hicmae export"):
        assert f"{what}: 384 features differ by at most " in done.stdout


def test_an_environment_with_extras_is_not_taken_for_the_core(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="not the core alone: lightning"):
        core_install.check(tmp_path)


def test_features_that_differ_are_found() -> None:
    values = json.loads("[1.0, 2.0]")
    core_install.compare("same", values, [1.0, 2.000009])
    with pytest.raises(AssertionError, match="differ by 2e-05"):
        core_install.compare("other", values, [1.0, 2.00002])
