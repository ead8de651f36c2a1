"""IEMOCAP: five pairs of actors, each dialogue filmed as a split screen; utterances are cut from it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from hicmae.benchmarks.card import Card, Expected, Native, NativeClip, Published, not_this_corpus
from hicmae.benchmarks.collected import NOT_A_CLIP, Collected
from hicmae.benchmarks.label_files import labelled_twice, malformed, read_lines
from hicmae.benchmarks.media_files import Media, MediaFiles
from hicmae.benchmarks.media_walk import find_media
from hicmae.data.labels import LabelSpec
from hicmae.data.manifest import Clip

TITLE = "IEMOCAP"
EMOTIONS = {"ang": "angry", "hap": "happy", "exc": "happy", "neu": "neutral", "sad": "sad"}
LEFT_OUT = {
    "fru": "label frustrated", "sur": "label surprised", "fea": "label fearful", "dis": "label disgusted",
    "oth": "label other", "xxx": "no agreement of the raters",
}  # fmt: skip

MARKED_ACTOR_IS_LEFT = True
"""Side of the actor who wears the markers, and after whom the dialogue is named (Ses01F_impro01: the woman)."""
PICTURE_ROWS = (0.2, 0.8)
"""Fractions of the height between which there is a picture; black above and below."""

_FORM = "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]"
_NUMBER = r"(\d+(?:\.\d+)?)"
_LABEL = re.compile(
    rf"\[{_NUMBER}\s*-\s*{_NUMBER}\]\s+(\w+)\s+(\w+)\s+\[{_NUMBER},\s*{_NUMBER},\s*{_NUMBER}\]", re.ASCII
)
_UTTERANCE = re.compile(r"(Ses0([1-5])([FM])_(?:impro|script)\w+)_([FM])\w+", re.ASCII)
_DIALOGUE = re.compile(r"Ses\d\d[FM]_\w+", re.ASCII)


def region_of(marked: str, speaker: str) -> tuple[float, float, float, float]:
    """(top, left, bottom, right), fractions of the picture, of the speaker's half; both arguments are F or M."""
    left = (marked == speaker) == MARKED_ACTOR_IS_LEFT
    top, bottom = PICTURE_ROWS
    return (top, 0.0, bottom, 0.5) if left else (top, 0.5, bottom, 1.0)


def read(root: Path) -> Native:
    """The utterances that raters agreed to be of one of the four emotions, in acted and improvised dialogues."""
    media = find_media(root)
    labels = [
        path for path in media.texts if path.parent.name.lower() == "emoevaluation" and _DIALOGUE.fullmatch(path.stem)
    ]
    # somebody may have cut the utterances into films of their own
    films = {
        path.stem: path
        for path, *_ in media.videos.values()
        if _DIALOGUE.fullmatch(path.stem) and not _UTTERANCE.fullmatch(path.stem)
    }
    if not labels and not films:
        looked_for = ("Session1/dialog/EmoEvaluation/Ses01F_impro01.txt", "Session1/dialog/avi/DivX/Ses01F_impro01.avi")
        raise not_this_corpus(root, TITLE, looked_for)
    if missing := sorted(set(films) - {path.stem for path in labels}):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise FileNotFoundError(
            f"{films[missing[0]]} has no label file {missing[0]}.txt in a folder EmoEvaluation{more}; "
            "copy dialog/EmoEvaluation from the corpus"
        )
    collected = Collected(left_out=Counter(media.not_opened()))
    lines = _labels(labels)
    places: dict[str, list[tuple[Path, int]]] = {}
    for path, number, match in lines:
        places.setdefault(match[3], []).append((path, number))
    for name in media.names():
        if _UTTERANCE.fullmatch(name) and name not in places:
            collected.left_out["utterance that no label file names"] += 1
        elif not _DIALOGUE.fullmatch(name):
            collected.left_out[NOT_A_CLIP] += 1
    for path, number, match in lines:
        start_s, end_s, clip_id, code = float(match[1]), float(match[2]), match[3], match[4].lower()
        named = _UTTERANCE.fullmatch(clip_id)
        if len(places[clip_id]) > 1:
            if (path, number) == places[clip_id][0]:
                collected.reject(clip_id, "duplicate_clip", labelled_twice(places[clip_id]))
        elif code in LEFT_OUT:
            collected.left_out[LEFT_OUT[code]] += 1
        elif code not in EMOTIONS:
            codes = ", ".join((*EMOTIONS, *LEFT_OUT))
            collected.reject(clip_id, "unknown_label", f"{path}, line {number}: {code!r} is none of {codes}")
        elif named is None:
            collected.reject(clip_id, "unknown_name", f"{path}, line {number}: not of the form Ses01F_impro01_F000")
        elif end_s <= start_s:
            collected.reject(clip_id, "empty_span", f"{path}, line {number}: from {start_s} to {end_s} s")
        else:
            _take(
                media, collected, named, (start_s, end_s), EMOTIONS[code], [float(text) for text in match.groups()[4:]]
            )
    return collected.native(root)


def _take(
    files: MediaFiles, collected: Collected, named: re.Match[str], span_s: tuple[float, float], emotion: str,
    numbers: list[float],
) -> None:  # fmt: skip
    clip_id, dialogue, session, marked, gender = named[0], named[1], named[2], named[3], named[4]
    whole = files.frames is None
    # A film and the sound of a dialogue share a clock; face frames are of the utterance alone, as is its own sound.
    media = files.media(clip_id, video=(dialogue,), sound=(dialogue if whole else clip_id,), in_video=False)
    if not isinstance(media, Media):
        collected.rejects.append(media)
        return
    clip = Clip(
        clip_id=clip_id, video=media.video, audio=media.audio,
        start_s=span_s[0] if whole else None, end_s=span_s[1] if whole else None,
        subject=f"Ses0{session}{gender}", split=f"fold{session}",
        labels={
            "emotion": emotion, "valence": numbers[0], "arousal": numbers[1], "dominance": numbers[2],
            "label:dialogue": dialogue,
        },
    )  # fmt: skip
    collected.clips.append(NativeClip(clip=clip, region=region_of(marked, gender) if whole else None))


def _labels(paths: list[Path]) -> list[tuple[Path, int, re.Match[str]]]:
    found: list[tuple[Path, int, re.Match[str]]] = []
    problems: list[tuple[Path, int, str]] = []
    for path in sorted(paths):
        before = len(found) + len(problems)
        for number, line in read_lines(path):
            if not line.startswith("["):
                continue  # a heading, or what one rater said of the utterance above
            if match := _LABEL.fullmatch(line):
                found.append((path, number, match))
            else:
                problems.append((path, number, line))
        if len(found) + len(problems) == before:
            raise ValueError(f"{path}: no line of the form {_FORM!r}; copy the file from the corpus again")
    if problems:
        raise malformed(problems, _FORM)
    return found


CARD = Card(
    name="iemocap",
    title=TITLE,
    labels=LabelSpec(classes={"emotion": ("angry", "happy", "neutral", "sad")}),
    folds=5,
    fold_rule="by session: SessionN, a pair of actors, is tested in fold N",
    metrics=("uar", "war"),
    obtain=(
        "On request, after a signed release form of the University of Southern California: "
        "https://sail.usc.edu/iemocap/iemocap_release.htm. What it may be used for is what the form says; do not pass "
        "it on."
    ),
    layout=(
        "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt\n"
        "Session1/dialog/avi/DivX/Ses01F_impro01.avi\n"
        "Session1/dialog/wav/Ses01F_impro01.wav\n"
        "or, in place of the avi: faces/Ses01F_impro01_F000/*.jpg and\n"
        "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav"
    ),
    confirmed=(
        "Folders, label lines, label codes: quoted alike by many public loaders. Names: the corpus's README, by which "
        "Ses01F_impro01_M000 is an utterance of the man in a dialogue in which the woman wears the markers.",
        "Times in EmoEvaluation hold for the avi and the wav of a dialogue: public loaders cut both with them.",
        "Counts: 10,039 utterances, of which angry 1103, happy 595, excited 1041, neutral 1708, sad 1084; 1085, 1023, "
        "1151, 1031 and 1241 of the four classes by session (emotion2vec's IEMOCAP recipe and others).",
        "The actor with the markers is on the left: three independent public scripts that cut the films of all "
        "sessions (Kansizoglou's Iemocap-preprocess among them). A fourth puts women always on the left.",
        "Pictures are 720 x 480 with black above and below: two public scripts use rows 100-380 and 112-368 only.",
    ),
    unconfirmed=(
        "The terms of the release form: we have not seen it.",
        "The side of the speaker in every single dialogue: if a contact sheet shows silent faces, it is "
        "MARKED_ACTOR_IS_LEFT in hicmae/benchmarks/iemocap.py.",
        "The sound is cut from the dialogue's wav, whose two channels are two microphones and are mixed; the files "
        "below sentences/wav, which most audio papers use, are not on the film's clock.",
        "Which utterances the published results used; 5,531 is what is usual.",
    ),
    read=read,
    expected=Expected(
        source="public loaders of the corpus, which agree",
        clips=5531,
        subjects=10,
        classes={"emotion": {"angry": 1103, "happy": 1636, "neutral": 1708, "sad": 1084}},
        splits={"fold1": 1085, "fold2": 1023, "fold3": 1151, "fold4": 1031, "fold5": 1241},
    ),
    published=(
        Published(
            method="HiCMAE-B",
            source="Sun et al., HiCMAE, Information Fusion 108 (2024), arXiv 2401.05698",
            protocol="leave one of five sessions out, best epoch on the test fold",
            scores={"uar": 0.6821, "war": 0.6836},
        ),
    ),
)
