"""The eleven settings of configs/finetune: held against their cards and each other, and run on corpora in miniature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from finetune.__main__ import main
from finetune.module import RECIPE
from hicmae.benchmarks import CARDS, card
from hicmae.data.storage import StorageFormat
from hicmae.prepare.corpus import benchmark_corpus
from hicmae.prepare.run import PrepareSettings, prepare
from tests import native_trees
from tests.test_finetune import SMALL
from tests.test_finetune_options import no_figures  # noqa: F401  for all of this file

FOLDER = Path(__file__).parent.parent / "configs" / "finetune"
BUILDERS = native_trees.BUILDERS


def settings(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load((FOLDER / f"{name}.yaml").read_text(), Loader=yaml.SafeLoader)
    return loaded


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value and key != "labels":
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


@pytest.mark.parametrize("name", CARDS)
def test_settings_are_those_of_the_card(name: str) -> None:
    found, benchmark = settings(name), card(name)
    labels = found["model"]["labels"]
    assert found["benchmark"] == name
    assert found["data"]["shards"] == [f"corpora/{name}/shards"]
    assert found["trainer"]["default_root_dir"] == f"runs/{name}"
    assert found["data"]["average_over"] == benchmark.average_over
    assert (found["data"]["test_fold"] is None) == (benchmark.folds == 0)
    assert (found["model"]["input"] or {}).get("frame_interval_s", 0.16) == benchmark.frame_interval_s
    assert {k: tuple(v) for k, v in labels["dimensions"].items()} == dict(benchmark.labels.dimensions)
    if benchmark.labels.classes:  # of several columns, each a task of its own, the first
        column, classes = next(iter(benchmark.labels.classes.items()))
        assert {k: tuple(v) for k, v in labels["classes"].items()} == {column: tuple(classes)}
    else:
        assert not labels["classes"]


OWN = {"benchmark", "model.labels", "data.shards", "trainer.default_root_dir"}
"""What each has of its own anyway."""
DIFFERENT: dict[str, dict[str, Any]] = {
    "ravdess": {}, "msp_improv": {}, "iemocap": {}, "crema_d_4": {},
    "mafw": {"trainer.max_epochs": 100}, "mafw_compound": {"trainer.max_epochs": 100},
    "dfew": {"trainer.max_epochs": 100},
    "mer2023": {"trainer.max_epochs": 100, "data.test_fold": None},
    "avcaffe": {"data.test_fold": None, "data.average_over": "label:task"},
    "werewolf_xl": {
        "trainer.max_epochs": 30, "data.batch_size": 32, "model.input.frame_interval_s": 0.12,
        "model.mixing.probability": 0.0, "data.allow_shared_subjects": True,
    },
}  # fmt: skip
"""In what they differ from CREMA-D's, and how; a comment in each file says why."""


def test_every_benchmark_has_its_settings_and_they_differ_where_it_says_so() -> None:
    assert {*DIFFERENT, "crema_d"} == set(CARDS)
    common = flat(settings("crema_d"))
    for name, expected in DIFFERENT.items():
        found = flat(settings(name))
        found.setdefault("model.input", None)
        wanted = common | expected
        for key in found.keys() | wanted.keys():
            if key not in OWN and key != "model.input":
                assert found.get(key) == wanted.get(key), (name, key)
        text = (FOLDER / f"{name}.yaml").read_text()
        for key in expected:
            line = next(line for line in text.splitlines() if line.strip().startswith(f"{key.split('.')[-1]}:")
                        or f"{{{key.split('.')[-1]}:" in line)  # fmt: skip
            assert "#" in line, f"{name}.yaml: no comment says why {key} differs"


def test_the_common_recipe_is_the_papers() -> None:
    """Section 4.2 of the paper, and what the library takes without settings."""
    found = settings("crema_d")
    model = found["model"]
    assert (model["drop_path"], model["label_smoothing"], model["head_init_scale"]) == (0.1, 0.1, 1e-3)
    assert {k: model["mixing"][k] for k in ("mixup_alpha", "cutmix_alpha")} == {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}
    for name, value in model["optimizer"].items():
        default = getattr(RECIPE, name)
        assert (tuple(value) if isinstance(value, list) else value) == default, name
    augment = found["data"]["augmentation"]
    assert augment["rand_augment"] == {"operations": 4, "probability": 0.5, "magnitude": 7.0, "magnitude_std": 0.5}
    assert augment["erase_probability"] == 0.25
    assert (found["data"]["batch_size"], found["data"]["test_segments"], found["trainer"]["max_epochs"]) == (56, 2, 50)


def test_the_page_on_fine_tuning_names_files_epochs_and_options_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    text = (FOLDER.parent.parent / "docs" / "finetune.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")]
    epochs = {row[0].strip("`"): row[2] for row in rows if ".yaml" in row[0]}
    assert epochs == {f"{name}.yaml": str(settings(name)["trainer"]["max_epochs"]) for name in CARDS}
    with pytest.raises(SystemExit):
        main(["fit", f"--config={FOLDER / 'crema_d.yaml'}", "--print_config"])
    known = flat(yaml.safe_load(capsys.readouterr().out))
    where = ("model.", "data.augmentation.")
    for row in rows:
        for option in row[0].split(", "):
            name = option.strip("`")
            assert ".yaml" in name or any(prefix + name in known for prefix in where), name


@pytest.mark.parametrize("name", CARDS)
def test_two_steps_on_the_corpus_in_miniature(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the tree as it is downloaded, by the file as it is shipped, but for size and device."""
    monkeypatch.chdir(tmp_path)
    BUILDERS[name](tmp_path / "download")
    corpus = benchmark_corpus(name, tmp_path / "download")
    prepare(corpus, Path("corpora") / name, PrepareSettings(storage=StorageFormat()))
    small = {
        "model.init": "null", "model.preset": "micro", "model.architecture": json.dumps(SMALL),
        "data.batch_size": 2, "data.num_workers": 0, "trainer.max_steps": 2, "trainer.accelerator": "cpu",
        "trainer.precision": "32-true", "wandb": "off",
    }  # fmt: skip
    options = [f"--{key}={value}" for key, value in small.items()]
    assert main(["fit", "--config", str(FOLDER / f"{name}.yaml"), *options]) == 0
    run = tmp_path / "runs" / name
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    benchmark = card(name)
    assert saved["hicmae"]["input"]["frame_interval_s"] == benchmark.frame_interval_s
    scores = json.loads((run / "metrics.json").read_text())["last"]["test"]
    assert set(benchmark.metrics) <= set(scores)
    table = pd.read_parquet(run / "predictions.parquet")
    assert set(table.split) == {"val", "test"}
    assert (table[table.split == "test"].n_segments >= 2).all()


def test_avcaffes_other_target_is_chosen_as_its_file_says(capsys: pytest.CaptureFixture[str]) -> None:
    text = (FOLDER / "avcaffe.yaml").read_text()
    valence = next(line for line in text.splitlines() if "--model.labels.classes" in line)
    given = valence.split("'")[1]
    with pytest.raises(SystemExit) as stop:
        main(["fit", f"--config={FOLDER / 'avcaffe.yaml'}", f"--model.labels.classes={given}", "--print_config"])
    assert stop.value.code == 0
    labels = yaml.safe_load(capsys.readouterr().out)["model"]["labels"]["classes"]
    assert labels == {"label:valence": list(card("avcaffe").labels.classes["label:valence"])}
