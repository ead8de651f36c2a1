"""The page on what scores hide, from runs whose gain, temperature and speakers are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from finetune.__main__ import main
from finetune.hidden.runs import read_runs
from finetune.hidden.section import mean_over_runs
from finetune.protocol import PAPER_PROTOCOL
from finetune.selection import CHOSEN_ON_TEST
from hicmae.calibration import scaled
from hicmae.speaker_scores import sd_of_equals, speaker_scores, spread
from tests.test_calibration import calibrated
from tests.test_selection import curve

CLASSES = ("a", "b", "c", "d", "e")


def run(
    root: Path, *, temperature: float = 2.0, seed: int = 0, label: str = "", followed: bool = True, part: str = "test",
    classes: tuple[str, ...] = CLASSES, test_clips: int = 1000, clips: str = "",
) -> Path:  # fmt: skip
    """A run directory whose predictions are too sure by ``temperature``, and whose curve gains ``0.1 + seed / 10``."""
    root.mkdir(parents=True)
    tables = []
    for name, count in (("val", 3000), (part, test_clips)):
        truth, number = calibrated(count, seed=seed + (name == "val") * 100)
        given = scaled(truth, 1 / temperature)
        table: dict[str, Any] = {
            "checkpoint": "best", "split": name, "protocol": label,
            "clip_id": [f"{clips}{name}{i}" for i in range(count)],
            "subject": [f"{name}{i % 25:02d}" for i in range(count)], "label": np.array(CLASSES)[number],
            "predicted": np.array(CLASSES)[given.argmax(axis=1)], "n_segments": 2 if name == "test" else 1,
        }  # fmt: skip
        table |= {f"probability_{one}": given[:, i] for i, one in enumerate(CLASSES)}
        tables.append(pd.DataFrame(table))
    pd.concat(tables).to_parquet(root / "predictions.parquet", index=False)
    about = {
        "protocol": label,
        "classes": classes,
        "dimensions": [],
        "data": "made up",
        "test_fold": None,
        "seed": seed,
    }
    (root / "metrics.json").write_text(json.dumps({"about": about}))
    if followed:
        curve([0.5, 0.4, 0.3], [0.3, 0.4 + seed / 10, 0.35]).write(root)
    return root


def hidden(*arguments: Any) -> int:
    return main(["hidden", *map(str, arguments)])


def test_a_page_of_several_runs(tmp_path: Path) -> None:
    folders = [run(tmp_path / "seeds" / f"seed{i}", seed=i, clips=f"{i}/") for i in range(3)]
    assert hidden(*folders, "--out", tmp_path / "out") == 0
    values = json.loads((tmp_path / "out" / "hidden.json").read_text())
    page = (tmp_path / "out" / "hidden.md").read_text()
    for name in ("selection", "calibration", "speakers"):
        assert (tmp_path / "out" / "figures" / f"{name}.png").stat().st_size > 0
        assert f"figures/{name}.png" in page
    assert values["selection"]["gain_over_validation"] == pytest.approx(0.2)  # of 0.1, 0.2, 0.3
    assert values["selection"]["interval_over_runs"] == pytest.approx([0.2 - 0.2484, 0.2 + 0.2484], abs=1e-4)
    assert f"chosen on the test [{CHOSEN_ON_TEST}]" in page
    assert "gains 20.00 over choosing it on validation in the mean" in page
    for i in range(3):
        found = values["calibration"][f"seed{i}"]
        assert found["temperature"] == pytest.approx(2, rel=0.1)
        assert found["after"]["ece"] < 0.5 * found["before"]["ece"]
    pooled = values["calibration"]["all runs"]
    assert pooled["after"]["ece"] < 2 * pooled["ece_by_chance"] < 0.1
    assert "err alike" not in page
    assert "another number of windows than the validation" in page
    rows = pd.read_csv(tmp_path / "out" / "calibration.csv")
    assert set(rows["when"]) == {"before", "after", "difference"}
    change = rows[(rows["run"] == "all runs") & (rows["error"] == "nll") & (rows["when"] == "difference")].iloc[0]
    assert change["low"] < change["value"] < change["high"] < 0
    assert values["speakers"]["war"]["speakers"] == 25
    speakers = pd.read_csv(tmp_path / "out" / "speakers.csv")
    assert len(speakers) == 75
    means = speakers.groupby("subject")["war"].mean()
    assert values["speakers"]["war"]["lowest_tenth"] == pytest.approx(means.nsmallest(3).mean())


def test_no_ece_by_chance_of_runs_that_tested_the_same_clips(tmp_path: Path) -> None:
    folders = [run(tmp_path / f"seed{i}", seed=i, test_clips=50) for i in range(2)]
    assert hidden(*folders, "--out", tmp_path / "out") == 0
    values = json.loads((tmp_path / "out" / "hidden.json").read_text())["calibration"]
    assert values["all runs"]["ece_by_chance"] is None
    assert values["seed0"]["ece_by_chance"] > 0
    assert "Runs that tested the same clips err alike on them" in (tmp_path / "out" / "hidden.md").read_text()


def test_a_section_without_material_says_what_is_missing(tmp_path: Path) -> None:
    folder = run(tmp_path / "paper", label=PAPER_PROTOCOL, followed=False)
    assert hidden(folder) == 0
    page = (folder / "hidden" / "hidden.md").read_text()
    assert "Not available: no run has a test_curve.json: train with --follow_test true." in page
    assert "a temperature fitted on the test is no result" in page
    assert f"paper [{PAPER_PROTOCOL}]" in page
    assert (folder / "hidden" / "speakers.csv").exists()
    assert not (folder / "hidden" / "calibration.csv").exists()


def test_a_cross_validation_stands_for_its_folds(tmp_path: Path) -> None:
    for fold in (2, 10, 1):
        run(tmp_path / "cv" / f"fold{fold}", test_clips=50)
    (tmp_path / "cv" / "folds.json").write_text("{}")
    assert [one.name for one in read_runs([tmp_path / "cv"])] == ["fold1", "fold2", "fold10"]


def test_runs_that_cannot_be_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(tmp_path / "first", test_clips=50)
    cases = [
        ((tmp_path / "none",), "none/metrics.json; is"),
        ((first, first), "given twice"),
        ((first, run(tmp_path / "other", classes=CLASSES[:4], test_clips=50)), "give runs of one task"),
        ((run(tmp_path / "untested", part="train", test_clips=50),), "has no test predictions"),
    ]
    for folders, message in cases:
        assert hidden(*folders, "--out", tmp_path / "out") == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        hidden(first, first)
    assert "--out is needed" in capsys.readouterr().err


def test_intervals_over_runs() -> None:
    assert mean_over_runs([0.2]) == (0.2, None)
    mean, interval = mean_over_runs([1.0, 3.0, float("nan")])
    assert mean == 2
    assert interval == pytest.approx((2 - 12.706, 2 + 12.706), abs=1e-3)


# ---------------------------------------------------------------- speakers


def test_scores_of_speakers_by_hand() -> None:
    table = pd.DataFrame(
        {
            "subject": ["x", "x", "x", "y", "y", ""],
            "label": ["a", "a", "b", "a", "b", "a"],
            "predicted": ["a", "b", "b", "b", "b", "a"],
            "valence_target": [0.0, 0.5, 1.0, 0.0, 1.0, 0.0],
            "valence_prediction": [0.0, 0.5, 1.0, 0.0, 1.0, 0.0],
        }
    )
    scores = speaker_scores(table, ("a", "b"), ("valence",)).set_index("subject")
    assert scores["clips"].to_dict() == {"x": 3, "y": 2}
    assert scores["war"].to_dict() == pytest.approx({"x": 2 / 3, "y": 0.5})
    assert scores["uar"].to_dict() == pytest.approx({"x": 0.75, "y": 0.5})
    assert scores.loc["x", "ccc_valence"] == pytest.approx(1.0)
    assert np.isnan(scores.loc["y", "ccc_valence"])  # of two clips


def test_the_spread_of_scores() -> None:
    found = spread([*np.linspace(0, 1, 21), float("nan")])
    assert (found["speakers"], found["lowest"], found["median"], found["highest"]) == (21, 0, 0.5, 1)
    assert found["lowest_tenth"] == pytest.approx(0.05)  # 0, 0.05, 0.1
    assert found["sd"] == pytest.approx(np.linspace(0, 1, 21).std(ddof=1))
    with pytest.raises(ValueError, match="no speaker"):
        spread([float("nan")])


def test_equal_speakers_differ_by_their_few_clips() -> None:
    rng = np.random.default_rng(0)
    shares = rng.binomial(20, 0.6, size=100000) / 20
    assert sd_of_equals([20] * 10, 0.6) == pytest.approx(shares.std(), rel=0.01)
