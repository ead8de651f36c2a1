"""RAVDESS, speech: 24 actors speak two sentences in eight emotions."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from hicmae.benchmarks.card import Card, Expected, Native, Published, not_this_corpus
from hicmae.benchmarks.collected import NOT_A_CLIP, Collected
from hicmae.benchmarks.media_walk import find_media
from hicmae.data.labels import LabelSpec

TITLE = "RAVDESS"
EMOTIONS = {
    "01": "neutral", "02": "calm", "03": "happy", "04": "sad",
    "05": "angry", "06": "fearful", "07": "disgust", "08": "surprised",
}  # fmt: skip
INTENSITIES = {"01": "normal", "02": "strong"}
BOTH, VIDEO_ONLY, AUDIO_ONLY = "01", "02", "03"
SPEECH, SONG = "01", "02"

ACTORS = 24
ACTORS_PER_FOLD = 4

# modality, channel, and what names the take: emotion, intensity, statement, repetition, actor
_NAME = re.compile(r"(0[1-3])-(0[12])-((\d\d)-(\d\d)-\d\d-\d\d-(\d\d))")


def fold_of(actor: int) -> int | None:
    """The fold (from 1) in which an actor is tested; None for a number that no actor has."""
    return 1 + (actor - 1) // ACTORS_PER_FOLD if 1 <= actor <= ACTORS else None


def read(root: Path) -> Native:
    """The spoken takes: a film with its sound, or else the film without sound and the sound alone."""
    media = find_media(root)
    takes: dict[str, re.Match[str]] = {}
    songs: set[str] = set()
    collected = Collected(left_out=Counter(media.not_opened()))
    for name in media.names():
        match = _NAME.fullmatch(name)
        if match is None:
            collected.left_out[NOT_A_CLIP] += 1
        elif match[2] == SONG:
            songs.add(match[3])
        else:
            takes[match[3]] = match
    if not takes and not songs:
        raise not_this_corpus(root, TITLE, ("Actor_01/01-01-01-01-01-01-01.mp4",))
    if songs:
        collected.left_out["song"] = len(songs)
    for take, match in takes.items():
        clip_id, silent, sound = (f"{modality}-{SPEECH}-{take}" for modality in (BOTH, VIDEO_ONLY, AUDIO_ONLY))
        emotion, intensity, actor = match[4], match[5], match[6]
        fold = fold_of(int(actor))
        whole = clip_id in media.videos
        if emotion not in EMOTIONS or intensity not in INTENSITIES:
            codes = f"emotion {emotion!r}, intensity {intensity!r}"
            collected.reject(clip_id, "unknown_label", f"{codes}: emotions are 01 to 08, intensities 01 and 02")
        elif fold is None:
            collected.reject(clip_id, "unknown_subject", f"actor {actor!r} is not one of 01 to {ACTORS}")
        else:
            labels = {"emotion": EMOTIONS[emotion], "label:intensity": INTENSITIES[intensity]}
            names = {} if whole else {"video": (silent,), "sound": (sound,)}
            collected.add(
                media.clip(clip_id, **names, in_video=whole, subject=actor, split=f"fold{fold}", labels=labels)
            )
    return collected.native(root)


CARD = Card(
    name="ravdess",
    title="RAVDESS, speech",
    labels=LabelSpec(classes={"emotion": tuple(EMOTIONS.values())}),
    folds=ACTORS // ACTORS_PER_FOLD,
    fold_rule="by actor: 1-4, 5-8, 9-12, 13-16, 17-20 and 21-24 are tested in folds 1 to 6",
    metrics=("uar", "war"),
    obtain=(
        "Free: https://zenodo.org/record/1188976 (doi 10.5281/zenodo.1188976), the 24 files Video_Speech_Actor_01.zip "
        "to Video_Speech_Actor_24.zip of about 0.5 GB each. CC BY-NC-SA 4.0; commercial licences from the authors."
    ),
    layout=(
        "Video_Speech_Actor_01/Actor_01/01-01-06-01-02-01-01.mp4   modality 01 (with sound), channel 01 (speech),\n"
        "    emotion, intensity, statement, repetition, actor; the folder Video_Speech_Actor_01 is optional\n"
        "or, without films of modality 01: Actor_01/02-01-*.mp4 (no sound) and Actor_01/03-01-*.wav\n"
        "or, in place of films: faces/01-01-06-01-02-01-01/*.jpg beside the wav (03-01-*) or the films"
    ),
    confirmed=(
        "Names, codes, zip files, licence and counts: the description of the corpus at Zenodo, record 1188976: speech "
        "films are 60 takes x 2 modalities (with sound, without) x 24 actors = 2880 files, sound files 1440; neutral "
        "speech has no strong intensity, hence 96 neutral takes and 192 of each other emotion.",
        "That a zip holds a folder Actor_NN: code of several public users of the corpus.",
        "Folds: the lists of the method's authors (sunlicai/HiCMAE), 240 takes each. Their picture is that of the "
        "silent film (02-01-*) of a take and their sound its wav (03-01-*); here both are those of the film with sound "
        "(01-01-*) where it is there, which is of the same take.",
    ),
    unconfirmed=(
        "That the files of modality 02 and 03 of a take begin at the same instant; they are only put together where "
        "there is no film with sound.",
    ),
    read=read,
    expected=Expected(
        source="the corpus's description at Zenodo: 60 spoken takes of each of 24 actors",
        clips=1440,
        subjects=ACTORS,
        classes={"emotion": {name: 96 if name == "neutral" else 192 for name in EMOTIONS.values()}},
        splits={f"fold{fold}": 240 for fold in range(1, 7)},
    ),
    published=(
        Published(
            method="HiCMAE-B",
            source="Sun et al., HiCMAE, Information Fusion 108 (2024), arXiv 2401.05698",
            protocol="6 folds by actor, best epoch on the test fold",
            scores={"uar": 0.8796, "war": 0.8799},
        ),
    ),
)
