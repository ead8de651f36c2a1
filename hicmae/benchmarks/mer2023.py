"""MER2023, track MER-MULTI: clips of Chinese films and series; six emotions."""

from __future__ import annotations

from pathlib import Path

from hicmae.benchmarks.card import Card, Expected, Native, Published, not_this_corpus
from hicmae.benchmarks.collected import Collected
from hicmae.benchmarks.label_files import read_table
from hicmae.benchmarks.media_files import MediaFiles
from hicmae.benchmarks.media_walk import find_media
from hicmae.data.labels import LabelSpec
from hicmae.data.manifest import finite_number

EMOTIONS = {
    "neutral": "neutral",
    "angry": "angry",
    "happy": "happy",
    "sad": "sad",
    "worried": "worried",
    "surprise": "surprised",
}
"""Our word for each of the corpus's."""

_LAYOUT = """\
train-label.csv            columns name, discrete (emotion) and valence
train/sample_00000000.avi  video with sound
test1-label.csv            MER-MULTI, columns as above
test1/sample_00000007.avi  each of these in the root or in one folder of it, as the archives unpack:
                           mer2023train/train, mer2023test1&2/test1, test-labels/test1-label.csv"""


def _read(root: Path) -> Native:
    found = {name: _below(root, name) for name in ("train-label.csv", "train", "test1-label.csv", "test1")}
    if missing := [name for name, path in found.items() if path is None]:
        looked_for = [f"{name} (in it or in one of its folders)" for name in missing]
        raise not_this_corpus(root, "MER2023", looked_for)
    collected = Collected()
    names: set[str] = set()
    for part, split in (("train", "train"), ("test1", "test")):
        media = find_media(root, below=[found[part]], clip_name=r"sample_\d+")  # type: ignore[list-item]
        collected.left_out.update(media.not_opened())
        here = _read_part(found[f"{part}-label.csv"], media, split, names, collected)  # type: ignore[arg-type]
        if rest := len(set(media.videos) - {name.lower() for name in here}):
            collected.left_out[f"in {part} without a label"] = rest
        names |= here
    return collected.native(root)


def _below(root: Path, name: str) -> Path | None:
    places = [root / name, *sorted(root.glob(f"*/{name}"))] if root.is_dir() else []
    return next((place for place in places if place.exists()), None)


def _read_part(table: Path, media: MediaFiles, split: str, earlier: set[str], collected: Collected) -> set[str]:
    here: set[str] = set()
    for number, row in read_table(table, ("name", "discrete")):
        name, emotion = row["name"], row["discrete"].lower()
        if name in here or name in earlier:
            detail = f"{table.name}, line {number}: this name occurred before, and was used then"
            collected.reject(name, "duplicate_clip", detail)
        elif emotion not in EMOTIONS:
            detail = f"{table.name}, line {number}: {row['discrete']!r} is none of {', '.join(EMOTIONS)}"
            collected.reject(name, "unknown_label", detail)
        else:
            labels: dict[str, str | float] = {"emotion": EMOTIONS[emotion]}
            if (valence := finite_number(row.get("valence", ""))) is not None:
                labels["valence"] = valence
            collected.add(media.clip(name, split=split, labels=labels))
        here.add(name)
    return here


MER2023 = Card(
    name="mer2023",
    title="MER2023 (MER-MULTI), 6 emotions",
    labels=LabelSpec(classes={"emotion": tuple(EMOTIONS.values())}),
    folds=0,
    fold_rule=(
        "the challenge's own division: train is its Train&Val set, test is MER-MULTI (test1); MER-NOISE (test2) and "
        "MER-SEMI (test3) are not used; validation is carved out of train clip by clip"
    ),
    metrics=("weighted_f1", "uar"),
    obtain=(
        "Sign the end user licence agreement at huggingface.co/datasets/MERChallenge/MER2023: academic research "
        "alone, no hand-over to third parties, nothing to be uploaded. The archives have passwords that the "
        "organizers send. Lian et al., ACM Multimedia 2023"
    ),
    layout=_LAYOUT,
    confirmed=(
        "train, train-label.csv, test1, test1-label.csv, columns name, discrete, valence, the six labels; test1 is "
        "MER-MULTI (zeroQiaoba/MERTools: MER2023/main-baseline.py, README, and MER2024/toolkit/preprocess/mer2023.py)",
        "folders as the archives unpack, .avi files of train and test1, 411 clips of MER-MULTI by class (public "
        "preprocessing code and its README)",
    ),
    unconfirmed=(
        "the number of training clips (the challenge's paper gives 3,373, by memory)",
        "the order of classes in published models; here it is that of MERTools",
        "speakers: the corpus names none, so validation is carved clip by clip",
        "label-6way.npz, which MERTools makes of the tables, is not read: it is pickled, and can run code",
    ),
    read=_read,
    expected=Expected(
        source="a public count of test1-label.csv",
        splits={"test": 411},
    ),
    published=(
        Published(
            method="HiCMAE-B", source="Sun et al., Information Fusion 108 (2024)",
            protocol="not known: the released code reads a validation list that was not released",
            scores={"uar": 0.6415, "weighted_f1": 0.7133},
        ),
    ),
)  # fmt: skip
