"""CREMA-D: 91 actors speak 12 sentences in six emotions; and its subset of four."""

from __future__ import annotations

import bisect
import functools
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from hicmae.benchmarks.card import Card, Expected, Native, Published, not_this_corpus
from hicmae.benchmarks.collected import NOT_A_CLIP, Collected
from hicmae.benchmarks.media_walk import find_media
from hicmae.data.labels import LabelSpec

TITLE = "CREMA-D"
EMOTIONS = {"ANG": "angry", "DIS": "disgust", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
FOUR = ("ANG", "HAP", "NEU", "SAD")

FIRST_ACTOR = 1001
LAST_ACTOR_OF_FOLD = (1018, 1036, 1054, 1072, 1091)

# one name was written with a single X at its end until 2022
_NAME = re.compile(r"\d{4}_[A-Z]{3}_[A-Z]{3}_(LO|MD|HI|XX?)", re.IGNORECASE)

BROKEN = {
    "1064_IEO_DIS_MD": "a minute long, with all emotions of this sentence",
    "1064_TIE_SAD_XX": "of no duration",
    "1076_MTI_NEU_XX": "very short, without sound",
    "1076_MTI_SAD_XX": "an error picture, very short, without sound",
}
"""Files that the corpus's own README calls wrong, and what it says of them."""


def fold_of(actor: int) -> int | None:
    """The fold (from 1) in which an actor is tested; None for a number that no actor has."""
    if not FIRST_ACTOR <= actor <= LAST_ACTOR_OF_FOLD[-1]:
        return None
    return 1 + bisect.bisect_left(LAST_ACTOR_OF_FOLD, actor)


def read(root: Path, *, codes: Collection[str]) -> Native:
    """The clips whose emotion has one of these codes."""
    media = find_media(root)
    names: dict[str, list[str]] = {}
    collected = Collected(left_out=Counter(media.not_opened()))
    for name in media.names():
        if match := _NAME.fullmatch(name):
            clip_id = name.upper() + "X" * (match[1].upper() == "X")
            names.setdefault(clip_id, []).append(name)
        else:
            collected.left_out[NOT_A_CLIP] += 1
    if not names:
        raise not_this_corpus(root, TITLE, ("VideoFlash/1001_DFA_ANG_XX.flv", "AudioWAV/1001_DFA_ANG_XX.wav"))
    for clip_id, spellings in names.items():
        actor, sentence, emotion, level = clip_id.split("_")
        fold = fold_of(int(actor))
        if emotion not in EMOTIONS:
            collected.reject(clip_id, "unknown_label", f"emotion {emotion!r} is none of {', '.join(EMOTIONS)}")
        elif emotion not in codes:
            collected.left_out[f"label {EMOTIONS[emotion]}"] += 1
        elif fold is None:
            collected.reject(clip_id, "unknown_subject", f"actor {actor} is not one of 1001 to 1091")
        elif clip_id in BROKEN:
            collected.reject(clip_id, "known_broken", f"by the corpus's README the file is {BROKEN[clip_id]}")
        else:
            labels = {"emotion": EMOTIONS[emotion], "label:sentence": sentence, "label:level": level}
            collected.add(
                media.clip(
                    clip_id, video=spellings, sound=spellings, in_video=False, subject=actor, split=f"fold{fold}",
                    labels=labels,
                )
            )  # fmt: skip
    return collected.native(root)


def _card(name: str, title: str, codes: tuple[str, ...], expected: Expected, published: tuple[Published, ...]) -> Card:
    return Card(
        name=name,
        title=title,
        labels=LabelSpec(classes={"emotion": tuple(EMOTIONS[code] for code in codes)}),
        folds=len(LAST_ACTOR_OF_FOLD),
        fold_rule="by actor: 1001-1018, 1019-1036, 1037-1054, 1055-1072 and 1073-1091 are tested in folds 1 to 5",
        metrics=("uar", "war"),
        obtain=(
            "Free: https://github.com/CheyneyComputerScience/CREMA-D or its mirror "
            "https://gitlab.com/cs-cooper-lab/crema-d-mirror, about 7.5 GB, cloned with git-lfs (without it the media "
            "are pointers of a few bytes). Open Database License 1.0, its contents under the Database Contents License "
            "1.0. The authors ask users to fill in the form that their README links."
        ),
        layout=(
            "CREMA-D/VideoFlash/1001_DFA_ANG_XX.flv   actor, sentence, emotion, level\n"
            "CREMA-D/AudioWAV/1001_DFA_ANG_XX.wav\n"
            "or, in place of VideoFlash: faces/1001_DFA_ANG_XX/*.jpg"
        ),
        confirmed=(
            "Names, codes, folders and licence: the README and the list of files of the corpus's own repository "
            "(CheyneyComputerScience/CREMA-D). Counted in that list: 7,442 flv and as many wav of the same names, "
            "91 actors, 1,271 clips an emotion and 1,087 neutral ones, 1463, 1470, 1476, 1476 and 1557 a fold.",
            "Four of them are rejected (known_broken) because that README calls them wrong: " + ", ".join(BROKEN) + ".",
            "Folds: the lists of the method's authors (sunlicai/HiCMAE). They hold 7,437 clips (4,896 of four "
            "emotions), one less than here: 1040_ITH_SAD_XX, a sad one of fold 3 that long was named 1040_ITH_SAD_X.",
            "The label is the emotion that the actor was asked for, as in the file name; not the raters' vote.",
        ),
        unconfirmed=(
            "That picture and wav of a clip begin at the same instant is taken from the corpus's README, by which the "
            "wav was converted from the video.",
        ),
        read=functools.partial(read, codes=codes),
        expected=expected,
        published=published,
    )


_COUNTED = "our count of the file names in the corpus's repository, less the four clips that its README calls wrong"
_PAPER = "Sun et al., HiCMAE, Information Fusion 108 (2024), arXiv 2401.05698"
_PROTOCOL = "5 folds by actor, best epoch on the test fold"

CARD = _card(
    "crema_d",
    TITLE,
    tuple(EMOTIONS),
    Expected(
        source=_COUNTED,
        clips=7438,
        subjects=91,
        classes={
            "emotion": {"angry": 1271, "disgust": 1270, "fearful": 1271, "happy": 1271, "neutral": 1086, "sad": 1269}
        },
        splits={"fold1": 1463, "fold2": 1470, "fold3": 1476, "fold4": 1474, "fold5": 1555},
    ),
    (
        Published(method="HiCMAE-B", source=_PAPER, protocol=_PROTOCOL, scores={"uar": 0.8491, "war": 0.8489}),
        Published(method="HiCMAE-B", source=_PAPER, protocol=_PROTOCOL, scores={"uar": 0.7111}, modalities=("audio",)),
        Published(method="HiCMAE-B", source=_PAPER, protocol=_PROTOCOL, scores={"uar": 0.7725}, modalities=("video",)),
    ),
)

CARD_4 = _card(
    "crema_d_4",
    f"{TITLE}, four emotions",
    FOUR,
    Expected(
        source=_COUNTED,
        clips=4897,
        subjects=91,
        classes={"emotion": {"angry": 1271, "happy": 1271, "neutral": 1086, "sad": 1269}},
        splits={"fold1": 963, "fold2": 968, "fold3": 972, "fold4": 971, "fold5": 1023},
    ),
    (Published(method="HiCMAE-B", source=_PAPER, protocol=_PROTOCOL, scores={"uar": 0.9400, "war": 0.9413}),),
)
