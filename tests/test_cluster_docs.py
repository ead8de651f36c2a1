"""The launch lines of docs/cluster.md and configs/: their flags exist, and the batch script goes on when it should."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from pretrain.__main__ import main

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
SCRIPT = ROOT / "configs" / "slurm" / "pretrain.sbatch"
SLURM = {"SLURM_JOB_NUM_NODES": "4", "SLURM_NTASKS_PER_NODE": "8", "SLURM_JOB_NAME": "hicmae", "SLURM_JOB_ID": "4711"}


def launches() -> dict[str, list[str]]:
    """Arguments of every line that starts the job, by where it stands."""
    found = {}
    script = SCRIPT.read_text()
    batch = re.search(r"python -m (pretrain fit .*)", script.replace("\\\n", ""))
    extra = re.search(r"sbatch --nodes 4 configs/slurm/pretrain.sbatch (.*)", PAGE)
    torchrun = re.search(r"^torchrun .* -m (pretrain fit .*)$", PAGE, flags=re.MULTILINE)
    comment = (ROOT / "configs" / "pretrain" / "large.yaml").read_text()
    large = re.search(r"^#\s+torchrun .* -m (pretrain fit .*)$", comment, flags=re.MULTILINE)
    assert batch and extra and torchrun and large  # noqa: PT018
    line = re.sub(r"\$(SLURM_\w+)", lambda name: SLURM[name[1]], batch[1]).replace('"$@"', extra[1])
    for name, text in (("sbatch", line), ("torchrun", torchrun[1]), ("large.yaml", large[1])):
        job, *arguments = shlex.split(text)
        assert job == "pretrain"
        found[name] = arguments
    return found


@pytest.mark.parametrize("name", ["sbatch", "torchrun", "large.yaml"])
def test_every_launch_line_parses(name: str, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stop:
        main([*launches()[name], "--print_config"])
    assert stop.value.code == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    assert settings["ckpt_path"] == "auto"
    assert settings["data"]["shards"] == ["/data/vox2/shards"]
    nodes = {"sbatch": 4, "torchrun": 2, "large.yaml": 1}[name]
    assert settings["trainer"]["num_nodes"] == nodes
    assert settings["model"]["preset"] == ("base" if name == "torchrun" else "large")


def test_the_settings_of_the_page_parse(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        (tmp_path / "more.yaml").write_text(block)
        with pytest.raises(SystemExit) as stop:
            main(["fit", "--config", "configs/pretrain/base.yaml", "--config", str(tmp_path / "more.yaml"),
                  "--print_config"])  # fmt: skip
        assert stop.value.code == 0
        wanted = yaml.safe_load(block)["trainer"]["strategy"]
        found = yaml.safe_load(capsys.readouterr().out)["trainer"]["strategy"]
        assert found["class_path"] == wanted["class_path"]
        assert found["init_args"].items() >= wanted["init_args"].items()


@pytest.mark.parametrize(("status", "requeued"), [(138, True), (143, False), (1, False), (0, False)])
def test_the_batch_script_goes_on_only_after_its_time_was_up(tmp_path: Path, status: int, requeued: bool) -> None:
    for name, body in (("bin/srun", f'echo "$@" > started; exit {status}'), ("bin/scontrol", 'echo "$@" > requeued'),
                       (".venv/bin/activate", "")):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    environment = SLURM | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", str(SCRIPT), "--data.seed", "3"], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == status
    started = (tmp_path / "started").read_text()
    assert "--trainer.num_nodes 4 --trainer.devices 8" in started
    assert started.endswith("--data.seed 3\n")
    assert (tmp_path / "requeued").exists() == requeued
    if requeued:
        assert (tmp_path / "requeued").read_text() == "requeue 4711\n"
