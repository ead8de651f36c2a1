"""AVCAffe: people at tasks in a video call; self-reported arousal and valence of each task, five levels each."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from hicmae.benchmarks.card import Card, Expected, Native, Published, not_this_corpus
from hicmae.benchmarks.collected import Collected
from hicmae.benchmarks.label_files import bad_line, read_lines
from hicmae.benchmarks.media_walk import find_media
from hicmae.data.labels import LabelSpec

LEVELS = {
    "arousal": ("Excited", "Wide-awake", "Neutral", "Dull", "Calm"),
    "valence": ("Pleasant", "Pleased", "Neutral", "Unsatisfied", "Unpleasant"),
}
TASK = "label:task"
TEST_PARTICIPANTS = frozenset(
    f"aiim{number:03d}"
    for number in (1, 2, 13, 14, 43, 44, 53, 54, 57, 58, 63, 64, 67, 68, 77, 78, 99, 100, 107, 108)
)  # fmt: skip
"""The validation part of the corpus, which papers report as the test."""
_CLIP = re.compile(r"((aiim\d{3})_task_\d+)_clip_\d+")
_LABEL = re.compile(r"(aiim\d{3}_task_\d+)\s*,\s*(\S.*)")

_LAYOUT = """\
ground_truths/arousal.txt                                        lines "aiim001_task_1, Calm"; valence.txt likewise
info/val.txt                                                     the participants of the corpus's validation part
videos/shorter_segments/aiim001/task_1/aiim001_task_1_clip_001.avi   video with sound
face_crops/**/aiim001_task_1_clip_001/*.jpg                      or the corpus's own face pictures, once every zip
                                                                 within the zips is unpacked; the sound comes from
                                                                 videos/shorter_segments"""


def _read(root: Path) -> Native:
    truths, segments = root / "ground_truths", root / "videos" / "shorter_segments"
    # The corpus's loader expects the face pictures below images, its download puts them below face_crops.
    media = find_media(root, below=[segments, root / "face_crops", root / "images"], clip_name=_CLIP.pattern)
    if not truths.is_dir() or not media.videos:
        looked_for = ["ground_truths/arousal.txt and valence.txt", "videos in videos/shorter_segments"]
        raise not_this_corpus(root, "AVCAffe", looked_for)
    _check_division(root / "info" / "val.txt")
    levels = {name: _read_levels(truths / f"{name}.txt") for name in LEVELS}
    collected = Collected(left_out=Counter(media.not_opened()))
    seen: set[str] = set()
    for name in sorted(set(media.videos) | set(media.pictures)):
        match = _CLIP.fullmatch(name)
        if match is None:
            where = ", ".join(map(str, media.videos.get(name) or media.pictures[name]))
            collected.reject(name, "unknown_name", f"{where}: a clip is called like aiim001_task_1_clip_001; remove it")
            continue
        task, participant = match.group(1), match.group(2)
        seen.add(task)
        labels: dict[str, str | float] = {TASK: task}
        try:
            labels |= {f"label:{column}": _level(column, task, levels[column]) for column in LEVELS}
        except _Unusable as error:
            collected.reject(name, error.reason, str(error))
            continue
        split = "test" if participant in TEST_PARTICIPANTS else "train"
        collected.add(media.clip(name, split=split, subject=participant, labels=labels))
    for task in sorted({task for tasks in levels.values() for task in tasks} - seen):
        collected.reject(task, "missing_video", f"this task has labels, and no clip below {segments}")
    return collected.native(root)


def _check_division(path: Path) -> None:
    """Hold the corpus's list of validation participants, where it is there, against the known one."""
    if not path.is_file():
        return
    listed = set(re.findall(r"aiim\d{3}", "\n".join(line for _, line in read_lines(path))))
    if differing := sorted(listed ^ TEST_PARTICIPANTS):
        raise ValueError(
            f"{path}: these participants are in it or in the known validation part, and not in both: "
            f"{', '.join(differing)}; results would not compare with published ones, so unpack the file again"
        )


def _read_levels(path: Path) -> dict[str, str]:
    levels: dict[str, str] = {}
    for number, line in read_lines(path):
        match = _LABEL.fullmatch(line)
        if match is None:
            if "," not in line:
                continue  # the corpus's loader passes such lines over too
            raise bad_line(path, number, line, "a task and its level, such as 'aiim001_task_1, Calm'")
        task, level = match.group(1), match.group(2)
        if levels.setdefault(task, level) != level:
            raise bad_line(path, number, line, f"the level that {task} had in an earlier line, {levels[task]!r}")
    return levels


class _Unusable(ValueError):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def _level(column: str, task: str, tasks: dict[str, str]) -> str:
    if task not in tasks:
        raise _Unusable("no_label", f"{column}.txt has no line for {task}")
    for level in LEVELS[column]:
        if level.lower() == tasks[task].lower():
            return level
    raise _Unusable("unknown_label", f"{column} of {task} is {tasks[task]!r}, none of {', '.join(LEVELS[column])}")


AVCAFFE = Card(
    name="avcaffe",
    title="AVCAffe, arousal and valence in 5 levels each",
    labels=LabelSpec(classes={f"label:{column}": levels for column, levels in LEVELS.items()}),
    folds=0,
    fold_rule=(
        "the corpus's own division by participant: 20 of 106 are its validation part, which papers test on (split "
        "test); the other 86 are train"
    ),
    metrics=("weighted_f1", "uar"),
    obtain=(
        "Ask for access at the Queen's University Dataverse (doi:10.5683/SP3/PSWY62) with an institutional account, "
        "and download with the script of github.com/pritamqu/AVCAffe within 30 days. Non-commercial research alone, "
        "under the Database License Agreement there; faces may be shown only of those in info/public_face_ids.txt. "
        "Sarkar et al., AAAI 2023"
    ),
    layout=_LAYOUT,
    confirmed=(
        "the tree, 58,112 clips of 106 participants, .avi files of about 6 seconds, 25 fps (pritamqu/AVCAffe: README "
        "and loaders)",
        "lines 'aiim001_task_1, LEVEL' of the ground truths, the levels and their order, names of clips, the 20 "
        "participants of the validation part (loaders of pritamqu/AVCAffe)",
        "where the face pictures lie once all zips are unpacked (public preprocessing code)",
    ),
    unconfirmed=(
        "the form of info/val.txt: every participant's name in it counts",
        "whether every task has both labels; clips of a task without one are rejected",
        "times of the face pictures: those without a face were dropped, and the others are spread over the clip's "
        "sound by their numbers. Published results of HiCMAE used faces that its authors cropped themselves",
        "clips in info/no_audio_files.txt are without speech; they are used here, as their task has a label",
    ),
    read=_read,
    expected=Expected(source="README of pritamqu/AVCAffe", clips=58112, subjects=106),
    published=(
        Published(
            method="HiCMAE-B", source="Sun et al., Information Fusion 108 (2024)", column="label:arousal",
            protocol="best epoch on the test part (the released code validates on it), clips averaged by task",
            scores={"weighted_f1": 0.4318},
        ),
        Published(
            method="HiCMAE-B", source="Sun et al., Information Fusion 108 (2024)", column="label:valence",
            protocol="best epoch on the test part (the released code validates on it), clips averaged by task",
            scores={"weighted_f1": 0.4420},
        ),
    ),
    average_over=TASK,
)  # fmt: skip
