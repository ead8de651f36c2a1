"""The measurement of robustness: the same scores as a test on clean clips, curves, a second start, several models."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import finetune.robustness as job
from finetune.__main__ import main
from finetune.robustness import RobustnessSettings
from finetune.robustness_data import Condition, CorruptedBatches, KeptBatches, RobustnessData, TestSounds
from finetune.robustness_overlay import write_overlay
from finetune.robustness_report import Measured, scores_of
from hicmae.checkpoint import save_export
from hicmae.corruptions import CORRUPTIONS, corruption
from hicmae.data.batch import ClipBatch
from hicmae.data.manifest import read_manifest, write_manifest
from hicmae.data.splits import TEST
from tests.corpus import make_corpus
from tests.test_finetune import LABELS, arguments, module

QUICK = "{noise: [10, 0], blur: [8], desynchronisation: [-0.2, 0.2]}"
FEW = ["--robustness.corruptions=[noise, blur, desynchronisation]", f"--robustness.levels={QUICK}"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Test clips of two speakers; one of the six cannot be decoded, and each begins elsewhere in its file."""
    made = make_corpus(tmp_path_factory.mktemp("robustness") / "corpus", 24, corrupt=[7])
    rows = [
        replace(clip, start_s=0.04 * number, subject=f"subject{number % 8}") for number, clip in enumerate(made.clips)
    ]
    return write_manifest(made.path, rows)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("exports") / "both", seed=3)


def exported(folder: Path, *, seed: int, **options: Any) -> Path:
    torch.manual_seed(seed)
    tuned = module(head_init_scale=30.0, **options)  # far from the same for all clips
    return save_export(folder, tuned.model, spec=tuned.spec, provenance={"metrics": {}})


def command(manifest: Path, root: Path, export: Path, *more: str, job_name: str = "robustness") -> list[str]:
    options = arguments(manifest, root, f"--model.init={export}", *more, command=job_name)
    return [one for one in options if not one.startswith(("--model.preset", "--model.architecture"))]


def written(root: Path) -> dict[str, Any]:
    return json.loads((root / "robustness" / "robustness.json").read_text())


@pytest.fixture(scope="module")
def run(manifest: Path, export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "both"
    assert main(command(manifest, root, export, *FEW)) == 0
    return root


# ---------------------------------------------------------------- the job


def test_clean_scores_are_those_of_the_test_to_the_bit(run: Path, manifest: Path, export: Path, tmp_path: Path) -> None:
    assert main(command(manifest, tmp_path, export, job_name="test")) == 0
    tested = json.loads((tmp_path / "test" / "metrics.json").read_text())["tested"]["test"]
    assert written(run)["clean"] == tested
    assert tested["clips_not_decoded"] == 1


def test_it_leaves_a_tidy_table_a_page_and_pictures(run: Path) -> None:
    out = run / "robustness"
    for name in ("figures/robustness.png", "figures/corruptions.png"):
        assert (out / name).stat().st_size > 5000
    table = pd.read_csv(out / "robustness.csv")
    content = written(run)
    levels = table[table.score == "uar"].groupby("corruption", sort=False)["level"].agg(list).to_dict()
    assert levels == {"noise": [np.inf, 10, 0], "blur": [0, 8], "desynchronisation": [-0.2, 0, 0.2]}
    assert set(table.score) == {"uar", "war", "macro_f1", "weighted_f1", *(
        f"{score}{of}" for score in ("ccc", "pcc", "mae", "rmse") for of in ("", "_valence"))}  # fmt: skip
    assert (table[table.clean].groupby("score")["value"].nunique(dropna=False) == 1).all()
    for row in content["rows"]:
        own = table[(table.corruption == row["corruption"]) & (table.level == row["level"])].set_index("score")
        assert own.loc["mae", "value"] == row["mae"]
        assert own.loc["mae", "low"] == row["intervals"]["mae"][0]
        assert (own.clips == 5).all()
    assert len({row["mae"] for row in content["rows"]} | {content["clean"]["mae"]}) == 6, "nothing was changed"
    page = (out / "robustness.md").read_text()
    assert "## white noise (`noise`)" in page
    assert "| 10 dB SNR | " in page
    assert "2 subjects they are too narrow" in page


def test_a_second_start_repeats_nothing_that_is_finished(
    run: Path, manifest: Path, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Clips are kept at first and decoded for each level afterwards, which changes nothing."""
    caplog.set_level(logging.INFO)
    measured: list[Any] = []

    def killed_at(count: int) -> Any:
        def scored(evaluation: Any) -> dict[str, Any]:
            if len(measured) == count:
                raise KeyboardInterrupt
            measured.append(evaluation)
            return scores_of(evaluation)

        return scored

    options = command(manifest, tmp_path, export, *FEW, "--robustness.sheet=false")
    monkeypatch.setattr(job, "scores_of", killed_at(3))
    with pytest.raises(KeyboardInterrupt):
        main(options)
    assert len(written(tmp_path)["rows"]) == 2
    assert caplog.text.count("GB: kept") == 1, "decoded again"
    measured.clear()
    monkeypatch.setattr(job, "scores_of", killed_at(100))
    assert main([*options, "--robustness.memory_gb=0"]) == 0
    assert caplog.text.count("GB: decoded each time") == len(measured) == 3
    assert written(tmp_path)["rows"] == written(run)["rows"]
    for name in ("robustness.csv", "robustness.md"):
        assert (tmp_path / "robustness" / name).read_text() == (run / "robustness" / name).read_text()


def test_what_was_measured_with_other_settings_is_not_taken(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = written(run)
    same = Measured(settings=content["settings"], about=content["about"] | {"protocol": ""})
    same.take_finished(run / "robustness")
    assert same.clean == content["clean"]
    assert {name: list(levels) for name, levels in same.levels.items()} == {
        "noise": [10, 0], "blur": [8], "desynchronisation": [-0.2, 0.2]
    }  # fmt: skip
    other = Measured(settings=content["settings"] | {"seed": 1, "weights": "others"}, about=dict(content["about"]))
    other.take_finished(run / "robustness")
    assert other.clean is None
    assert not other.levels
    assert "other settings (seed, weights): all is measured anew" in caplog.text


def test_a_checkpoint_is_measured_under_the_label_of_its_protocol(run: Path, manifest: Path, tmp_path: Path) -> None:
    """A run's own config.yaml and checkpoint; its best epoch was chosen on the test."""
    trained = tmp_path / "trained"
    fit = arguments(manifest, trained, "--data.paper_protocol=true", "--test_after_fit=false", "--trainer.max_epochs=1")
    assert main(fit) == 0
    config = next((trained / "logs").rglob("config.yaml"))
    options = ["robustness", f"--config={config}", f"--ckpt_path={trained / 'checkpoints' / 'last.ckpt'}",
               "--robustness.corruptions=[noise]", "--robustness.levels={noise: [0]}", "--data.paper_protocol=false",
               "--robustness.sheet=false"]  # fmt: skip
    assert main(options) == 0
    stem = "best epoch chosen on the test fold"
    assert stem in (trained / "robustness" / "robustness.md").read_text()
    assert set(pd.read_csv(trained / "robustness" / "robustness.csv")["protocol"]) == {f"paper protocol: {stem}"}


def test_what_cannot_be_measured_is_said(manifest: Path, export: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(command(manifest, tmp_path, export, "--robustness.corruptions=[noize]")) == 2
    assert "no corruption is called 'noize'; did you mean 'noise'?" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"blur has levels from 0.25 to 40 px of 160"):
        RobustnessSettings(levels={"blur": [99]})
    with pytest.raises(ValueError, match=r"not among robustness.corruptions"):
        RobustnessSettings(corruptions=["noise"], levels={"blur": [2]})
    heard = module(modalities=("audio",))
    with pytest.raises(ValueError, match=r"blur: the model takes no video.*Of a model of audio: noise, pink"):
        job._split(RobustnessSettings(corruptions=["blur"]), heard, data(manifest))
    made = data(manifest, test_without="audio")
    chosen, left_out = job._split(RobustnessSettings(), module(), made)
    assert all(kind.modalities == ("video",) for kind in chosen)
    assert left_out["noise"] == "audio is withheld from the test (data.test_without)"
    assert len(chosen) + len(left_out) == len(CORRUPTIONS)


def test_no_test_split_is_said(
    manifest: Path, export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [clip for clip in read_manifest(manifest).clips if clip.split == "train"]
    few = write_manifest(manifest.parent / "no_test.csv", rows)
    assert main(command(few, tmp_path, export)) == 2
    assert "no clip has split 'test'" in capsys.readouterr().err


def test_of_a_model_of_sound_pictures_are_left_out_and_models_are_laid_over(
    run: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    heard = exported(tmp_path / "export", seed=4, modalities=("audio",))
    root = tmp_path / "audio"
    more = ("--model.modalities=[audio]", *FEW, "--robustness.sheet=false")
    assert main(command(manifest, root, heard, *more)) == 0
    content = written(root)
    assert {row["corruption"] for row in content["rows"]} == {"noise"}
    assert content["left_out"]["blur"] == "the model takes no video"
    assert "`desynchronisation`: the model takes no video" in (root / "robustness" / "robustness.md").read_text()

    out = tmp_path / "both"
    assert main(["robustness", "--overlay", f"A+V={run}", f"--overlay=A={root / 'robustness'}", f"--out={out}"]) == 0
    table = pd.read_csv(out / "robustness.csv")
    for name, folder in (("A+V", run), ("A", root)):
        own = table[table.model == name].drop(columns="model").reset_index(drop=True)
        pd.testing.assert_frame_equal(own, pd.read_csv(folder / "robustness" / "robustness.csv"))
    page = (out / "robustness.md").read_text()
    assert "| level | A+V | A |" in page
    assert page.count("| - |") == 5  # blur and desynchronisation, of which A has none
    assert (out / "robustness.png").stat().st_size > 5000

    content["about"]["protocol"] = "the paper's"  # of one model alone: it stands at that one
    content["settings"]["test_without"] = "video"
    (root / "robustness" / "robustness.json").write_text(json.dumps(content))
    write_overlay({"A+V": run / "robustness", "A": root / "robustness"}, out)
    page = (out / "robustness.md").read_text()
    assert "| level | A+V | A [the paper's] |" in page
    assert page.count("the paper's") == page.count("| level |")
    assert "A and A+V were measured with other test_without" in caplog.text

    def fails(*arguments: str) -> str:
        assert main(["robustness", *arguments]) == 2
        return capsys.readouterr().err

    gone = tmp_path / "gone"
    assert "measure the model first" in fails(f"--overlay=A={gone}", f"--out={out}")
    assert "twice" in fails(f"--overlay=A={run}", f"--overlay=A={root}", f"--out={out}")
    assert "not NAME=FOLDER" in fails("--overlay=A", f"--out={out}")
    assert "have the score 'f9'" in fails(f"--overlay=A={run}", f"--out={out}", "--score=f9")
    content["settings"]["data"] = "another"
    (root / "robustness" / "robustness.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="are of other test clips"):
        write_overlay({"A+V": run / "robustness", "A": root / "robustness"}, out)


# ---------------------------------------------------------------- the data


def data(manifest: Path, **options: Any) -> RobustnessData:
    return RobustnessData(
        spec=module().spec, labels=LABELS, manifest=manifest, batch_size=4, num_workers=0, max_skip_fraction=0.5,
        **options,
    )  # fmt: skip


def under(made: RobustnessData, name: str, level: float, *, seed: int = 0) -> list[ClipBatch]:
    made.condition = Condition(corruption=corruption(name), level=level, seed=seed)
    return list(made.test_dataloader())


def test_only_what_a_corruption_is_of_changes_and_padding_never(manifest: Path) -> None:
    made = data(manifest)
    made.keep_bytes = 10**9
    clean = list(made.test_dataloader())
    assert sum(int(batch.valid.sum()) for batch in clean) == 10
    for name, level in (("noise", 0), ("babble", 0), ("occlusion", 0.3), ("desynchronisation", 0.3)):
        for before, after in zip(clean, under(made, name, level), strict=True):
            changed = {
                "video": (before.video != after.video).flatten(1).any(dim=1),
                "waveform": (before.waveform != after.waveform).any(dim=1),
            }
            own = "video" if name == "occlusion" else "waveform"
            assert torch.equal(changed.pop(own), before.valid), name
            assert not next(iter(changed.values())).any(), name
            assert torch.equal(before.index, after.index)
            assert torch.equal(before.valid, after.valid)


def test_changes_do_not_depend_on_the_batch_the_threads_or_what_is_kept(manifest: Path) -> None:
    found = []
    for batch_size, keep, threads in ((4, 10**9, 1), (3, 0, 4)):
        made = data(manifest)
        made.batch_size = batch_size
        made._loader = replace(made._loader, batch_size=batch_size)
        kept = KeptBatches(super(RobustnessData, made).test_dataloader(), keep)
        sounds = TestSounds(made.evaluation_source(TEST), made.spec, segments=2)
        rows = {}
        for name, level in (("babble", 5), ("occlusion", 0.3), ("desynchronisation", -0.2)):
            condition = Condition(corruption=corruption(name), level=level)
            for batch in CorruptedBatches(kept, condition, sounds, threads=threads):
                for row in batch.valid.nonzero().flatten().tolist():
                    key = name, int(batch.index[row]), int(batch.segment[row])
                    rows[key] = batch.video[row].clone(), batch.waveform[row].clone()
        found.append(rows)
    assert found[0].keys() == found[1].keys()
    for key, (video, waveform) in found[0].items():
        assert torch.equal(video, found[1][key][0]), key
        assert torch.equal(waveform, found[1][key][1]), key


def test_clips_are_decoded_once_where_they_fit(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = data(manifest)
    source = made.evaluation_source(TEST)
    reads: list[int] = []
    monkeypatch.setattr(made, "evaluation_source", lambda part: source)
    original = source.read
    monkeypatch.setattr(source, "read", lambda number: (reads.append(number), original(number))[1])
    for keep_bytes, passes in ((10**9, 1), (1000, 2)):
        made._kept, made.keep_bytes = None, keep_bytes
        made._evaluation_loaders.clear()
        reads.clear()
        under(made, "blur", 2)
        once = len(reads)
        under(made, "blur", 4)
        assert len(reads) == passes * once


def test_babble_takes_other_speakers_where_there_are_enough(manifest: Path) -> None:
    made = data(manifest)
    source = made.evaluation_source(TEST)
    sounds = TestSounds(source, made.spec, segments=2)
    pool = sounds._voices_of_all(0)
    assert len(pool) == 5  # all but the one that cannot be decoded
    voices = sounds.voices(0, 0)
    assert len(voices) == 4  # too few strangers for all of babble: any other clip
    assert all(not np.array_equal(voice, pool[0]) for voice in voices if 0 in pool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finetune.robustness_data.VOICES", 2)
        own = source.info(0).subject
        strangers = [pool[n] for n in pool if source.info(n).subject != own]
        assert all(any(np.array_equal(voice, one) for one in strangers) for voice in sounds.voices(0, 0))
        sounds._pool[7] = {0: pool[next(iter(pool))]}
        with pytest.raises(ValueError, match="leave babble out"):
            sounds.voices(0, 7)


def test_every_corruption_is_documented() -> None:
    page = (Path(__file__).parent.parent / "docs" / "robustness.md").read_text()
    for kind in CORRUPTIONS.values():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{kind.name}` |"))
        assert f"| {', '.join(f'{level:g}' for level in kind.levels)} |" in row, kind.name
        assert kind.unit in row
