"""A share of the labels, and epochs that stay as long: ``data.label_fraction`` and ``data.epoch_clips``."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hicmae.data.augment import RecognitionDraws
from hicmae.data.epoch import EpochOrder, OrderSettings
from hicmae.data.few_labels import share_of_clips
from hicmae.data.manifest import Clip, Manifest, write_manifest
from hicmae.data.plan import times_before
from hicmae.data.source import ClipSource, ManifestSource
from hicmae.data.splits import Splits, split_source
from tests.corpus import make_corpus
from tests.test_finetune import arguments, data, leave_out_figures, main, results, weights
from tests.test_stream import SPEC, assert_same, make_stream

CLASSES = {"happy": 200, "angry": 50, "rare": 3}


def corpus(order: int = 1) -> ManifestSource:
    """Clips of three classes by four speakers; two more speakers in the test."""
    clips = [
        Clip(
            clip_id=f"{name}{i:03d}", video=Path("x.mp4"), subject=f"s{i % 4}", split="train",
            labels={"emotion": name, "valence": i / 200},
        )
        for name, count in CLASSES.items()
        for i in range(count)
    ]  # fmt: skip
    clips += [replace(clip, clip_id=f"test-{clip.clip_id}", subject="t", split="test") for clip in clips[::20]]
    return ManifestSource(Manifest(path=Path("manifest.csv"), clips=tuple(clips[::order])))


def ids(source: ClipSource | None) -> set[str]:
    assert source is not None
    return {source.info(i).clip_id for i in range(len(source))}


def some(fraction: float, *, columns: tuple[str, ...] = ("emotion",), order: int = 1, seed: int = 0) -> Splits:
    return split_source(corpus(order), val_fraction=0.25, seed=seed, label_fraction=fraction, label_columns=columns)


def test_a_share_is_of_every_class_and_at_least_one_clip() -> None:
    everything = Counter(name[:-3] for name in ids(some(1.0).train))
    for fraction in (0.01, 0.05, 0.1, 0.5):
        kept = Counter(name[:-3] for name in ids(some(fraction).train))
        assert kept == {name: max(1, round(fraction * count)) for name, count in everything.items()}


def test_shares_are_nested_and_leave_validation_and_test_alone() -> None:
    shares = [some(fraction) for fraction in (0.01, 0.05, 0.1, 0.5, 1.0)]
    for smaller, larger in itertools.pairwise(shares):
        assert ids(smaller.train) < ids(larger.train)
        assert ids(smaller.val) == ids(larger.val)
        assert ids(smaller.test) == ids(larger.test)
    assert {part.labelled_clips for part in shares} == {len(shares[-1].train)}


def test_a_share_depends_on_seed_and_names_alone() -> None:
    assert ids(some(0.1).train) == ids(some(0.1, order=-1).train)
    assert len({frozenset(ids(share_of_clips(corpus(), 0.1, columns=(), seed=seed))) for seed in range(5)}) == 5
    whole = corpus()
    half = share_of_clips(whole, 0.5, columns=(), seed=0)  # other clips' names do not matter
    fewer = ids(share_of_clips(half, 0.2, columns=(), seed=0))
    assert fewer == ids(share_of_clips(whole, len(fewer) / len(whole), columns=(), seed=0))


def test_without_classes_clips_are_chosen_from_together() -> None:
    assert len(some(0.1, columns=()).train) == round(0.1 * some(1.0).labelled_clips)


def test_all_labels_are_the_source_itself() -> None:
    whole = corpus()
    assert share_of_clips(whole, 1.0, columns=("emotion",), seed=0) is whole


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5, float("nan")])
def test_what_is_no_share_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        some(fraction)


# ---------------------------------------------------------------- epochs in passes


def passes(clips: int, **settings: Any) -> EpochOrder:
    return EpochOrder(
        OrderSettings(sampling="passes", **settings), group_sizes=(clips - 2, 2), dataset_sizes=(clips,), seed=3
    )


@pytest.mark.parametrize(("clips", "epoch"), [(5, 12), (5, 5), (40, 12)])
def test_passes_show_clips_equally_often_whatever_an_epoch_is(clips: int, epoch: int) -> None:
    order = passes(clips, epoch_clips=epoch)
    assert order.batches(world_size=1, batch_size=8 if epoch > 8 else 4) == 1
    sequence = np.concatenate([order(number) for number in range(10)])
    assert len(sequence) == 10 * epoch
    for start in range(0, len(sequence) - clips + 1, clips):
        assert sorted(sequence[start : start + clips].tolist()) == list(range(clips))
    assert (passes(clips, epoch_clips=epoch)(7) == order(7)).all()


def test_the_times_a_clip_came_before() -> None:
    assert times_before(np.array([3, 1, 3, 3, 2, 1])).tolist() == [0, 0, 1, 2, 0, 1]
    assert times_before(np.array([4])).tolist() == [0]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> ManifestSource:
    """Three clips."""
    return ManifestSource(make_corpus(tmp_path_factory.mktemp("few"), 3))


def stream_of(few: ManifestSource, **settings: Any) -> Any:
    draws = RecognitionDraws(image_size=SPEC.image_size)
    return make_stream(few, draws=draws, batch_size=4, sampling="passes", epoch_clips=17, **settings)


def test_a_batch_larger_than_the_corpus_holds_other_draws_of_its_clips(few: ManifestSource) -> None:
    batches = list(stream_of(few))
    assert [len(batch.clip_ids) for batch in batches] == [4] * 4
    boxes = [tuple(box) for batch in batches for box in batch.crop_box.tolist()]
    assert len(set(boxes)) == len(boxes)


def test_what_stands_in_for_an_unusable_clip_is_another_view_each_time(tmp_path: Path) -> None:
    source = ManifestSource(make_corpus(tmp_path, 3, corrupt=[1]))
    stream = stream_of(source, max_skip_fraction=0.5)
    batches = list(stream)
    assert stream.skipped["truncated"] >= 5  # of 16 rows, and each was replaced by one of two clips
    boxes = [tuple(box) for batch in batches for box in batch.crop_box.tolist()]
    assert len(set(boxes)) == len(boxes) == 16
    assert_same(batches, list(stream_of(source, max_skip_fraction=0.5)))


def test_passes_resume_to_the_batch_and_keep_the_draws_of_any_workers(few: ManifestSource) -> None:
    whole = stream_of(few)
    batches = [*whole, *whole]
    resumed = stream_of(few, num_workers=2)
    interrupted = stream_of(few)
    for _, _ in zip(range(2), interrupted, strict=False):
        pass
    resumed.load_state_dict(interrupted.state_dict())
    assert_same([*resumed, *resumed], batches[2:])
    resumed.close()


# ---------------------------------------------------------------- the job


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_corpus(tmp_path_factory.mktemp("labels") / "corpus", 22)
    return write_manifest(made.path, [replace(clip, start_s=0.04 * i) for i, clip in enumerate(made.clips)])


def test_epochs_of_few_labels_are_as_long_as_of_all(manifest: Path) -> None:
    whole = data(manifest, batch_size=4)
    short = data(manifest, batch_size=1, label_fraction=0.3)
    kept = data(manifest, batch_size=4, label_fraction=0.3, epoch_clips="all")
    given = data(manifest, batch_size=4, label_fraction=0.3, epoch_clips=9)
    counts = [len(one.splits.train) for one in (whole, short, kept, given)]  # type: ignore[union-attr]
    assert counts[0] > counts[1] == counts[2] == counts[3]
    assert short.batches_per_epoch == counts[1]
    assert kept.batches_per_epoch == len(kept.train_dataloader()) == whole.batches_per_epoch
    assert given.batches_per_epoch == 2


def test_too_few_labels_for_a_batch_are_refused_with_the_remedy(manifest: Path) -> None:
    with pytest.raises(ValueError, match=r"3 clips are too few.*data\.epoch_clips"):
        _ = data(manifest, batch_size=16, label_fraction=0.01).batches_per_epoch


def test_a_run_with_a_label_of_each_class_trains_as_many_steps_and_goes_on_exactly(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_figures(monkeypatch)
    few = ("--data.label_fraction=0.01", "--data.epoch_clips=all", "--test_after_fit=false")
    assert main(arguments(manifest, tmp_path / "whole", *few)) == 0
    about, _ = results(tmp_path / "whole")
    assert about["about"]["splits"]["train"]["clips"] == 3
    assert about["about"]["label_fraction"] == 0.01
    assert about["last"]["step"] == 2 * (about["about"]["labelled_clips"] // 4)
    assert (
        f"Trained with 3 of {about['about']['labelled_clips']} labels" in (tmp_path / "whole" / "report.md").read_text()
    )
    assert main(arguments(manifest, tmp_path / "parts", *few, "--trainer.max_steps=3")) == 0
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    assert main(arguments(manifest, tmp_path / "parts", *few, f"--ckpt_path={last}")) == 0
    left, right = (weights(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "parts"))
    assert all((left[name] == right[name]).all() for name in left)
