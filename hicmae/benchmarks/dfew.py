"""DFEW: clips of films; seven expressions."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from hicmae.benchmarks.card import Card, Expected, Native, Published, not_this_corpus
from hicmae.benchmarks.collected import Collected
from hicmae.benchmarks.fold_lists import read_folds
from hicmae.benchmarks.label_files import bad_line, read_table
from hicmae.benchmarks.media_walk import find_media
from hicmae.data.labels import LabelSpec

FOLDS = 5
CLASSES = ("happy", "sad", "neutral", "angry", "surprised", "disgust", "fearful")
"""The corpus numbers them from 1; of its words, surprise and fear are surprised and fearful here as on other cards."""
_NUMBER = re.compile(r"\d{1,5}")
# 16 interpolated frames have no time that sound could be laid beside; the other repeats clip_224x224 as videos.
_NOT_USED = ("clip_224x224_16f", "clip_224x224_avi")

_LAYOUT = """\
EmoLabel_DataSplit/train(single-labeled)/set_1.csv    columns video_name (1 to 16372) and label (1 to 7); set_1 to set_5
EmoLabel_DataSplit/test(single-labeled)/set_1.csv
Clip/original/**/00001.mp4                            video with sound
Clip/clip_224x224/**/00001/*.jpg                      or the corpus's own face pictures; the sound comes from
                                                      Clip/original, or from a sound file 00001.wav (or 1.wav) below
                                                      Clip"""


def _read(root: Path) -> Native:
    lists = {part: _lists(root, part) for part in ("train", "test")}
    media = find_media(root, below=[root / "Clip"], clip_name=r"\d{5}", name=_five_digits, skip=_NOT_USED)
    if None in lists.values() or not media:
        looked_for = ["EmoLabel_DataSplit/train(single-labeled) and test(single-labeled)", "videos or frames in Clip"]
        raise not_this_corpus(root, "DFEW", looked_for)
    folds = [(lists["train"] / f"set_{n}.csv", lists["test"] / f"set_{n}.csv") for n in range(1, FOLDS + 1)]  # type: ignore[operator]
    listed, rejects = read_folds(folds, _read_list)
    collected = Collected(rejects=rejects, left_out=Counter(media.not_opened()))
    for clip in listed:
        if not 1 <= int(clip.label) <= len(CLASSES):
            collected.reject(clip.name, "unknown_label", f"label {clip.label} is not from 1 to {len(CLASSES)}")
        else:
            labels = {"emotion": CLASSES[int(clip.label) - 1]}
            collected.add(media.clip(clip.name, split=f"fold{clip.fold}", labels=labels))
    if rest := media.unlisted([*(clip.name for clip in listed), *(reject.clip_id for reject in rejects)]):
        collected.left_out["in no list: not single-labelled"] = rest
    return collected.native(root)


def _lists(root: Path, part: str) -> Path | None:
    # The corpus's own description writes single_labeled, what is downloaded single-labeled.
    places = [root / "EmoLabel_DataSplit" / f"{part}(single{dash}labeled)" for dash in "-_"]
    return next((place for place in places if place.is_dir()), None)


def _five_digits(stem: str) -> str:
    return stem.zfill(5) if _NUMBER.fullmatch(stem) else stem


def _read_list(path: Path) -> list[tuple[str, str]]:
    rows = []
    for number, row in read_table(path, ("video_name", "label")):
        if not (_NUMBER.fullmatch(row["video_name"]) and row["label"].isdecimal()):
            content = f"{row['video_name']},{row['label']}"
            raise bad_line(path, number, content, "the number of a clip and of its label, such as '1600,3'")
        rows.append((_five_digits(row["video_name"]), str(int(row["label"]))))
    return rows


DFEW = Card(
    name="dfew",
    title="DFEW, 7 expressions",
    labels=LabelSpec(classes={"emotion": CLASSES}),
    folds=FOLDS,
    fold_rule=(
        "the corpus's own five folds fd1 to fd5: split foldN is the clips of test(single-labeled)/set_N.csv; a clip "
        "that is not in exactly one test list and in the training lists of all other folds is rejected"
    ),
    metrics=("uar", "war"),
    obtain=(
        "Through dfew-dataset.github.io, with a signed agreement, for non-commercial research and education alone; "
        "the authors do not own the copyright of the clips. Jiang et al., ACM Multimedia 2020"
    ),
    layout=_LAYOUT,
    confirmed=(
        "names of folders, names of clips, numbers of the labels, 11,697 clips and sizes of the folds (the corpus's "
        "README, version 1.0, as quoted in a public repository)",
        "columns video_name and label, names of frames such as 00001_00001.jpg, order of the classes "
        "(jiangxingxun/DFEW); video_name without leading zeros (public preprocessing code)",
        "the five test lists are disjoint, every training list is all the rest; clips by class (lists in "
        "sunlicai/MAE-DFER)",
    ),
    unconfirmed=(
        "in which folders below Clip the archives unpack: they are searched at any depth",
        "speakers: the corpus names none, so validation is carved clip by clip and people may be in training and test",
        "times of the face pictures: frames without a face were dropped, and if the others were numbered anew, picture "
        "and sound drift apart within a clip; the whole videos do not have this fault",
    ),
    read=_read,
    expected=Expected(
        source="the corpus's README; classes counted in the lists of sunlicai/MAE-DFER",
        clips=11697,
        classes={"emotion": dict(zip(CLASSES, (2445, 1894, 2669, 2173, 1469, 145, 902), strict=True))},
        splits={"fold1": 2341, "fold2": 2341, "fold3": 2340, "fold4": 2339, "fold5": 2336},
    ),
    published=(
        Published(
            method="HiCMAE-B", source="Sun et al., Information Fusion 108 (2024)",
            protocol="not known: the released code reads a validation list that was not released; mean of 5 folds",
            scores={"uar": 0.6376, "war": 0.7501},
        ),
        Published(
            method="AVF-MAE++ (H)", source="CVPR 2025", protocol="not known",
            scores={"uar": 0.6688, "war": 0.7745},
        ),
    ),
)  # fmt: skip
