"""Werewolf-XL: nine people at a table who play Werewolf, 30 games; pleasure (valence), arousal and dominance."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

from hicmae.benchmarks.card import Card, Expected, Native, Published, not_this_corpus
from hicmae.benchmarks.collected import Collected
from hicmae.benchmarks.label_files import bad_line, csv_header, read_table
from hicmae.benchmarks.media_walk import find_media
from hicmae.data.labels import LabelSpec
from hicmae.data.manifest import finite_number

FOLDS, SESSIONS_PER_FOLD = 5, 6
DIMENSIONS = ("valence", "arousal", "dominance")
LOWEST, HIGHEST = -2.0, 2.0
_CLIP = re.compile(r"(\d{2})_\d{2}_\d+")
_SEAT = re.compile(r"(\d{1,2})-(\d{2})")  # session and seat, in the log of who played when
_SHOWN = 8
_STARTS = {
    "valence": ("mean_p", "pleasure", "valence"),
    "arousal": ("mean_a", "arousal"),
    "dominance": ("mean_d", "dominance"),
}
"""How the column of a target begins, in lower case: the corpus adds which annotators the mean is of."""

_LAYOUT = """\
ANY.csv or */ANY.csv      columns VideoName, Mean_P..., Mean_A..., Mean_D... (the corpus's PAD labels), or VideoName,
                          valence, arousal, dominance; where there is a column Group, rows other than "speaker" are
                          left out
**/01_01_128.mp4          video with sound: session, seat, number of the utterance
**/01_01_128_aligned/*.jpg  or aligned faces, with 01_01_128.mp4 or 01_01_128.wav for the sound
ANY.csv or */ANY.csv      columns Round, Times_1, Times_2, ... (the corpus's participation log), if you have it: who
                          played in which sessions, so that a person is one subject; else each seat of a session is"""


def _read(root: Path) -> Native:
    tables = {path: csv_header(path) for path in _tables(root)}
    targets = {path: columns for path, header in tables.items() if (columns := _target_columns(header))}
    media = find_media(root, clip_name=_CLIP.pattern, name=lambda stem: stem.removesuffix("_aligned"))
    if tables and media and not targets:
        there = "; ".join(f"{path}: {', '.join(header) or 'nothing'}" for path, header in list(tables.items())[:_SHOWN])
        raise ValueError(
            f"{root}: no table has the columns VideoName, Mean_P..., Mean_A..., Mean_D... (or VideoName, valence, "
            f"arousal, dominance), separated by commas; there are {there}"
        )
    if not targets or not media:
        looked_for = [
            "a csv file with the columns VideoName, Mean_P..., Mean_A..., Mean_D... in it or in one of its folders",
            "videos such as 01_01_128.mp4, at any depth",
        ]
        raise not_this_corpus(root, "Werewolf-XL", looked_for)
    people = _people([path for path, header in tables.items() if {"round", "times_1"} <= set(header)])
    collected = Collected(left_out=Counter(media.not_opened()))
    found: defaultdict[str, list[tuple[str, dict[str, float]]]] = defaultdict(list)
    for path, columns in targets.items():
        for number, row in read_table(path, [*columns.values()]):
            name, place = row["videoname"], f"{path}, line {number}"
            if row.get("group", "speaker").lower() != "speaker":
                collected.left_out[f"group {row['group']}"] += 1
                continue
            values = {target: finite_number(row[column]) for target, column in columns.items()}
            if problem := _problem(name, values):
                collected.reject(name, problem[0], f"{place}: {problem[1]}")
                continue
            found[name].append((place, values))  # type: ignore[arg-type]
    for name, places in sorted(found.items()):
        if any(values != places[0][1] for _, values in places[1:]):
            detail = "; ".join(f"{place}: {values}" for place, values in places)
            collected.reject(name, "conflicting_labels", f"{detail}. Remove all but one table")
            continue
        session, seat = int(name[:2]), name[:5]
        fold = f"fold{(session - 1) // SESSIONS_PER_FOLD + 1}"
        collected.add(media.clip(name, split=fold, subject=people.get(seat, seat), labels=places[0][1]))
    if rest := media.unlisted([*found, *(reject.clip_id for reject in collected.rejects)]):
        collected.left_out["video without a label"] = rest
    return collected.native(root)


def _tables(root: Path) -> list[Path]:
    # Not deeper: face trackers leave a table beside the frames of every clip.
    places = [*root.glob("*"), *root.glob("*/*")] if root.is_dir() else []
    return sorted(path for path in places if path.suffix.lower() == ".csv" and path.is_file())


def _target_columns(header: list[str]) -> dict[str, str]:
    """Column by target; empty where the table is no table of labels."""
    columns = {
        target: next((column for column in header if column.startswith(starts)), "")
        for target, starts in _STARTS.items()
    }
    return columns if "videoname" in header and all(columns.values()) else {}


def _problem(name: str, values: dict[str, float | None]) -> tuple[str, str] | None:
    match = _CLIP.fullmatch(name)
    if match is None or not 1 <= int(match.group(1)) <= FOLDS * SESSIONS_PER_FOLD:
        return "unknown_name", f"{name!r} is not session (01 to 30), seat and number, such as 01_01_128"
    for target, value in values.items():
        if value is None or not LOWEST <= value <= HIGHEST:
            found = "not a number" if value is None else f"{value:g}"
            return "unknown_label", f"{target} is {found}; it goes from {LOWEST:g} to {HIGHEST:g}"
    return None


def _people(logs: list[Path]) -> dict[str, str]:
    """Person by seat ("01_04"), named by the first seat the person had; from rows that list all seats of one person."""
    people: dict[str, str] = {}
    for path in logs:
        for number, row in read_table(path, ["round"]):
            cells = [cell for column, cell in row.items() if column.startswith("times_") and cell]
            seats = []
            for cell in cells:
                match = _SEAT.fullmatch(cell)
                if match is None:
                    raise bad_line(path, number, cell, "a session and a seat, such as '5-04'")
                seats.append(f"{int(match.group(1)):02d}_{match.group(2)}")
            for seat in seats:
                person = min(seats)
                if people.setdefault(seat, person) != person:
                    problem = f"the same person throughout: {seat} was {people[seat]} in an earlier line"
                    raise bad_line(path, number, ", ".join(cells), problem)
    return people


WEREWOLF_XL = Card(
    name="werewolf_xl",
    title="Werewolf-XL, valence, arousal and dominance",
    labels=LabelSpec(dimensions=dict.fromkeys(DIMENSIONS, (LOWEST, HIGHEST))),
    folds=FOLDS,
    fold_rule=(
        "by session (game), the first number of a clip's name: sessions 1-6 are fold1, 7-12 fold2, 13-18 fold3, 19-24 "
        "fold4, 25-30 fold5. Sessions are apart, people are not: 129 people played in 30 games of nine seats, so many "
        "are in several folds"
    ),
    metrics=("ccc_valence", "ccc_arousal", "ccc_dominance", "pcc_valence", "pcc_arousal", "pcc_dominance"),
    obtain=(
        "Links to videos of speakers, labels and the participation log are in github.com/Xinda-Wu/"
        "Werewolf-XL-Baseline; a licence is not stated there: ask the authors. Zhang et al., IEEE Transactions on "
        "Affective Computing, 2021"
    ),
    layout=_LAYOUT,
    confirmed=(
        "columns VideoName, Mean_P_1_2_3_4 (pleasure), Mean_A_1_2 (arousal), Mean_D_1_2_4 (dominance) and Group, "
        "14,632 clips of speakers, columns Round and Times_1 to Times_7 of the participation log, names such as "
        "01_01_128 with session and seat, folders such as 01_01_128_aligned (code and notebook output of Xinda-Wu/"
        "Werewolf-XL-Baseline)",
        "folds: first numbers 01-06, 07-12, 13-18, 19-24, 25-30 (lists in sunlicai/HiCMAE: 14,457 clips; 3346, 2747, "
        "3066, 3527, 1771)",
        "the first number is the session and not a player: the corpus authors' own notebook for splitting takes the "
        "session from it, the HiCMAE authors call these folds session-independent (SVFAP, section 4.3), and the corpus "
        "has 129 people in 30 sessions",
        "people are in several sessions and so in several folds: before training, that notebook removes the seats of "
        "all who also sit in the test sessions (for test sessions 1 to 3 it prints 39 seats of sessions 4 to 22). The "
        "published folds remove none. The corpus's own baseline has 10 folds of three sessions",
        "order of the three columns in the lists of sunlicai/HiCMAE: arousal, pleasure, dominance (three clips held "
        "against the notebooks); its dominance is of another set of annotators than the notebooks' column",
    ),
    unconfirmed=(
        "in which folders the archives unpack, and whether speakers' videos are named by clip: they are searched at "
        "any depth by name",
        "the range: published values lie between -1.5 and 2 in steps of a five-level scale, taken for -2 to 2",
        "frames a second of the videos: 0.12 s between frames is the authors' stride of 3 at 25",
        "why the HiCMAE lists lack 175 of the 14,632 clips",
        "without the participation log a seat of a session counts as a person, and validation may share people with "
        "training; with it, people are known to be shared by test and training",
    ),
    read=_read,
    expected=Expected(source="Zhang et al. (2021) and the baseline's notebooks", clips=14632),
    published=(
        Published(
            method="HiCMAE-B", source="Sun et al., Information Fusion 108 (2024), Table 11",
            protocol="best epoch on the test fold (the released code validates on the test list)",
            scores={
                "ccc_valence": 0.6481, "ccc_arousal": 0.3185, "ccc_dominance": 0.3754,
                "pcc_valence": 0.6923, "pcc_arousal": 0.3374, "pcc_dominance": 0.4066,
            },
        ),
    ),
    shared_subjects=True,
    frame_interval_s=0.12,
)  # fmt: skip
