"""Speaker-disjoint parts of a corpus."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import pytest

from hicmae.data.labels import LabelSpec
from hicmae.data.manifest import Clip, Manifest
from hicmae.data.source import ClipSource, ManifestSource, SubsetSource
from hicmae.data.splits import Splits, folds_of, keep_classes, part_for_test, split_source, subjects_of


def source(*rows: tuple[str, str, int]) -> ManifestSource:
    """Clips from (subject, split, how many)."""
    clips = [
        Clip(clip_id=f"{split}-{subject}-{i}-{row}", video=Path("x.mp4"), subject=subject, split=split)
        for row, (subject, split, count) in enumerate(rows)
        for i in range(count)
    ]
    return ManifestSource(Manifest(path=Path("manifest.csv"), clips=tuple(clips)))


def ids(part: ClipSource | None) -> set[str]:
    assert part is not None
    return {part.info(number).clip_id for number in range(len(part))}


def speakers(numbers: Iterable[int], split: str = "train") -> list[tuple[str, str, int]]:
    return [(f"s{number:02d}", split, 3) for number in numbers]


def test_the_manifests_own_splits_are_kept() -> None:
    splits = split_source(source(("a", "train", 3), ("b", "val", 2), ("c", "test", 4), ("d", "unlabelled", 9)))
    assert splits.summary() == {
        "train": {"clips": 3, "subjects": 1},
        "val": {"clips": 2, "subjects": 1},
        "test": {"clips": 4, "subjects": 1},
    }
    assert not splits.val_is_carved


def test_validation_is_carved_by_speaker() -> None:
    rows = [*speakers(range(10)), ("t", "test", 2)]
    splits = split_source(source(*rows), val_fraction=0.3)
    assert splits.val_is_carved
    assert len(subjects_of(splits.val)) == 3
    assert not subjects_of(splits.train) & subjects_of(splits.val)
    assert len(splits.train) == 21
    assert len(splits.val) == 9
    assert ids(splits.test) == {"test-t-0-10", "test-t-1-10"}


def test_carved_parts_are_the_sources_own_clips() -> None:
    """And not clips of a part of it, which a run that was begun by an earlier version would take for others."""
    everything = source(*speakers(range(5)), ("t", "test", 2))
    splits = split_source(everything)
    for part in (splits.train, splits.val):
        numbers = [i for i in range(len(everything)) if everything.info(i).clip_id in ids(part)]
        assert part.fingerprint == SubsetSource(everything, numbers, "").fingerprint


def test_the_carved_part_depends_on_seed_and_names_alone() -> None:
    def val(order: Iterable[int], seed: int = 0) -> set[str]:
        return subjects_of(split_source(source(*speakers(order)), val_fraction=0.3, seed=seed).val)

    assert val(range(10)) == val(reversed(range(10)))
    assert val(range(10)) == {"s00", "s03", "s07"}  # in every process
    assert len({frozenset(val(range(10), seed)) for seed in range(8)}) > 1


def test_at_least_one_speaker_on_each_side() -> None:
    for fraction in (0.01, 0.99):
        splits = split_source(source(*speakers(range(2))), val_fraction=fraction)
        assert len(subjects_of(splits.train)) == len(subjects_of(splits.val)) == 1


def test_clips_without_subject_are_carved_one_by_one_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        splits = split_source(source(("", "train", 20)), val_fraction=0.25)
    assert len(splits.val) == 5
    assert not ids(splits.val) & ids(splits.train)
    assert "20 of 20 training clips have no subject" in caplog.text


def test_speakers_and_clips_without_one_are_carved_apart() -> None:
    splits = split_source(source(*speakers(range(4)), ("", "train", 8)), val_fraction=0.25)
    assert len(splits.val) == 3 + 2
    assert len(splits.train) == 9 + 6
    assert not subjects_of(splits.train) & subjects_of(splits.val)


@pytest.mark.parametrize("pair", [("train", "test"), ("val", "test"), ("train", "val")])
def test_a_speaker_in_two_parts_is_refused_by_name(pair: tuple[str, str]) -> None:
    rows = [("a", "train", 2), ("b", "val", 2), ("c", "test", 2), *(("eve", split, 1) for split in pair)]
    with pytest.raises(ValueError, match=f"{pair[0]} and {pair[1]} share 'eve'.*allow_shared_subjects"):
        split_source(source(*rows))
    allowed = split_source(source(*rows), allow_shared_subjects=True)
    assert allowed.summary()[pair[0]]["clips"] == 3


def test_a_carved_validation_is_held_against_test_too() -> None:
    with pytest.raises(ValueError, match="share 's00'"):
        split_source(source(*speakers(range(3)), ("s00", "test", 1)))


def test_few_speakers_are_nested_and_leave_validation_alone() -> None:
    everything = source(*speakers(range(12)), ("t", "test", 1))

    def few(count: int | None, seed: int = 0) -> Splits:
        return split_source(everything, max_train_subjects=count, seed=seed)

    two, four = few(2), few(4)
    assert len(subjects_of(two.train)) == 2
    assert subjects_of(two.train) < subjects_of(four.train)
    assert ids(two.val) == ids(four.val) == ids(few(None).val)
    assert len({frozenset(subjects_of(few(2, seed).train)) for seed in range(8)}) > 1


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([("a", "test", 1)], {}, r"no clip has split 'train'; splits there are: test \(1\)"),
        ([("a", "train", 3)], {}, "nothing can be set aside"),
        ([("", "train", 1)], {}, "nothing can be set aside"),
        (speakers(range(3)), {"max_train_subjects": 3}, "at most the 2 subjects"),
        (speakers(range(3)), {"max_train_subjects": 0}, "at least 1"),
        ([*speakers(range(4)), ("", "train", 4)], {"max_train_subjects": 1}, "fill in the manifest"),
        (speakers(range(3)), {"val_fraction": 1.0}, "between 0 and 1"),
    ],
)
def test_what_cannot_be_divided(rows: list[tuple[str, str, int]], settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_source(source(*rows), **settings)


# ---------------------------------------------------------------- folds


def folded(*more: tuple[str, str, int], folds: Iterable[int] = (1, 2, 3)) -> ManifestSource:
    """Three speakers of two clips in each fold."""
    return source(*((f"f{fold}s{i}", f"fold{fold}", 2) for fold in folds for i in range(3)), *more)


def test_one_fold_is_the_test_and_the_others_are_for_training() -> None:
    splits = split_source(folded(), test_fold=2, val_fraction=0.34)
    assert subjects_of(splits.test) == {"f2s0", "f2s1", "f2s2"}  # type: ignore[arg-type]
    assert len(subjects_of(splits.val)) == 2
    assert subjects_of(splits.train) | subjects_of(splits.val) == {f"f{fold}s{i}" for fold in (1, 3) for i in range(3)}
    assert not subjects_of(splits.train) & subjects_of(splits.val)
    assert ids(part_for_test(folded(), test_fold=2)) == ids(splits.test)
    assert folds_of(folded(folds=range(1, 12))) == tuple(range(1, 12))


@pytest.mark.parametrize(
    ("rows", "fold", "message"),
    [
        (folded(), None, "folds 1, 2, 3: say which is the test with data.test_fold, or run .*python -m finetune folds"),
        (folded(), 4, "no fold 4; the folds are 1, 2, 3"),
        (folded(("x", "train", 2)), 1, r"splits train and folds \(1, 2, 3\) as well"),
        (folded(folds=(1, 2, 4)), 1, "numbers 1, 2, 4; expected"),
        (folded(folds=(1,)), 1, "numbers 1; expected at least two"),
        (source(("x", "train", 2), ("y", "test", 2)), 1, "test_fold=1, but no clip .*'test', 'train'"),
        (folded(("f2s0", "fold1", 1)), 1, "train and test share 'f2s0'"),
    ],
)
def test_folds_that_cannot_be_used(rows: ManifestSource, fold: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_source(rows, test_fold=fold)


def test_a_speaker_of_two_training_folds_is_on_one_side_of_the_validation() -> None:
    rows = folded(("eve", "fold1", 1), ("eve", "fold2", 1))
    for seed in range(4):
        splits = split_source(rows, test_fold=3, seed=seed)
        assert not subjects_of(splits.train) & subjects_of(splits.val)


def test_a_test_alone_names_its_fold_too() -> None:
    for fold in (None, 4):
        with pytest.raises(ValueError, match=r"folds.* 1, 2, 3"):
            part_for_test(folded(), test_fold=fold)
    assert ids(part_for_test(source(("y", "test", 2)), test_fold=None)) == {"test-y-0-0", "test-y-1-0"}


# ---------------------------------------------------------------- the paper's protocol


@pytest.mark.parametrize(
    ("rows", "fold", "train", "test"),
    [
        (folded(), 1, {f"f{fold}s{i}" for fold in (2, 3) for i in range(3)}, {"f1s0", "f1s1", "f1s2"}),
        (source(("a", "train", 2), ("b", "val", 2), ("c", "test", 2)), None, {"a", "b"}, {"c"}),
        (source(("a", "train", 2), ("c", "test", 2)), None, {"a"}, {"c"}),
    ],
)
def test_the_papers_protocol_validates_on_the_test(
    rows: ManifestSource, fold: int | None, train: set[str], test: set[str]
) -> None:
    splits = split_source(rows, test_fold=fold, paper_protocol=True)
    assert splits.val_is_test
    assert not splits.val_is_carved
    assert subjects_of(splits.train) == train
    assert ids(splits.val) == ids(splits.test)
    assert subjects_of(splits.val) == test


def test_the_papers_protocol_needs_a_test() -> None:
    with pytest.raises(ValueError, match="no clip has the split 'test'"):
        split_source(source(("a", "train", 2)), paper_protocol=True)


# ---------------------------------------------------------------- what is carved, what is left out


def labelled(**emotions: tuple[str, ...]) -> ManifestSource:
    """Clips without a subject, by split."""
    clips = []
    for split, names in emotions.items():
        for i, name in enumerate(names):
            labels: dict[str, str | float] = {"emotion": name, "label:task": f"t{i // 3}"}
            clips.append(Clip(clip_id=f"{split}{i}", video=Path("x.mp4"), split=split, labels=labels))
    return ManifestSource(Manifest(path=Path("manifest.csv"), clips=tuple(clips)))


def test_clips_that_share_a_prediction_are_not_torn_apart() -> None:
    rows = labelled(train=("a",) * 12)
    splits = split_source(rows, val_fraction=0.25, together="label:task")
    tasks = [{part.info(n).labels["label:task"] for n in range(len(part))} for part in (splits.train, splits.val)]
    assert [len(names) for names in tasks] == [3, 1]
    assert not tasks[0] & tasks[1]
    assert len(split_source(rows, val_fraction=0.25).val) == 3  # clip by clip


def test_other_classes_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    rows = labelled(train=("a", "b", "c", "c", "d"), test=("a", "c"))
    labels = LabelSpec(classes={"emotion": ("a", "b")})
    kept, dropped = keep_classes(rows, labels)
    assert ids(kept) == {"train0", "train1", "test0"}
    assert dropped == {"emotion": {"c": 3, "d": 1}}
    assert "emotion: c 3, d 1" in caplog.text
    assert keep_classes(kept, labels) == (kept, {})
    with pytest.raises(
        ValueError, match=r"no clip has one of the classes \['x', 'y'\].* there are: a 2, b 1, c 3, d 1"
    ):
        keep_classes(rows, LabelSpec(classes={"emotion": ("x", "y")}))


def test_a_missing_label_is_not_another_class() -> None:
    rows = labelled(train=("a", "b"))
    kept, dropped = keep_classes(rows, LabelSpec(classes={"label:mood": ("a", "b")}))
    assert (len(kept), dropped) == (2, {})
