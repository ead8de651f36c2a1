"""The table over runs says what metrics.json says."""

from __future__ import annotations

import json

import pytest

from finetune.protocol import PAPER_PROTOCOL
from finetune.report import main


def write_run(folder, name, uar, arousal, *, tested=True):
    scores = {"uar": uar, "war": uar, "macro_f1": uar / 2, "ccc": 0.5, "ccc_arousal": arousal, "clips": 64}
    about = {"modalities": ["video", "audio"], "init": "random weights", "classes": ["a", "b", "c", "d"]}
    content = {"about": about, "best": {"test": scores} if tested else {"val": scores}, "last": {"val": scores}}
    if tested:
        content["last"]["test"] = scores | {"uar": uar - 0.1}
    (folder / name).mkdir()
    (folder / name / "metrics.json").write_text(json.dumps(content))
    return str(folder / name)


def test_intervals_and_protocol_are_shown(tmp_path, capsys):
    run = write_run(tmp_path, "paper", 0.5, 0.7)
    path = tmp_path / "paper" / "metrics.json"
    content = json.loads(path.read_text())
    content["about"]["protocol"] = PAPER_PROTOCOL
    content["best"]["test"]["intervals"] = {"level": 0.95, "over": "subjects", "uar": [0.41, 0.6], "war": None}
    path.write_text(json.dumps(content))
    assert main([run, "--out", str(tmp_path / "out")]) == 0
    table = capsys.readouterr().out
    assert f"| paper [{PAPER_PROTOCOL}] |" in table
    assert "| 0.500 [0.410, 0.600] (0.400) | 0.500 (0.500) |" in table
    assert "95% bootstrap intervals" in table


def test_table_and_figure(tmp_path, capsys):
    runs = [write_run(tmp_path, "first", 0.5, 0.7), write_run(tmp_path, "second", 0.25, -0.2)]
    assert main([*runs, "--out", str(tmp_path / "out"), "--title", "Two runs", "--note", "A note."]) == 0
    table = (tmp_path / "out" / "results.md").read_text()
    assert table == "# Two runs\n\n" + capsys.readouterr().out.removeprefix("Two runs\n\n")
    assert "| run | modalities | start | UAR | WAR | macro F1 | CCC arousal |" in table
    assert "| first | video + audio | random weights | 0.500 (0.400) | 0.500 (0.500) | 0.250 (0.250) | 0.700" in table
    assert "-0.200" in table
    assert "UAR of 0.250" in table
    assert "A note." in table
    assert (tmp_path / "out" / "figures" / "results.png").stat().st_size > 5000


@pytest.mark.parametrize("case", ["absent", "untested"])
def test_runs_without_test_scores_are_named(tmp_path, capsys, case):
    run = str(tmp_path / "absent") if case == "absent" else write_run(tmp_path, "untested", 0.5, 0.1, tested=False)
    assert main([run, "--out", str(tmp_path / "out")]) == 2
    assert case in capsys.readouterr().err
