"""MAFW: clips of films, series and short videos; 11 single expressions, or 43 with the compound ones."""

from __future__ import annotations

import functools
import re
from collections import Counter
from pathlib import Path

from hicmae.benchmarks.card import Card, Expected, Native, Published, not_this_corpus
from hicmae.benchmarks.collected import Collected
from hicmae.benchmarks.fold_lists import read_folds
from hicmae.benchmarks.label_files import bad_line, read_lines
from hicmae.benchmarks.media_walk import find_media
from hicmae.data.labels import LabelSpec

FOLDS = 5
SINGLE = (
    "anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise", "contempt", "anxiety", "helplessness",
    "disappointment",
)  # fmt: skip
# Parts in the order of the single classes; the corpus has these 32 combinations.
COMPOUND = (
    "anger_disgust", "anger_sadness", "anger_surprise", "anger_anxiety", "anger_helplessness",
    "disgust_sadness", "disgust_surprise", "disgust_contempt", "disgust_anxiety", "disgust_helplessness",
    "disgust_disappointment", "fear_sadness", "fear_surprise", "fear_anxiety", "happiness_surprise",
    "happiness_contempt", "sadness_surprise", "sadness_anxiety", "sadness_helplessness", "sadness_disappointment",
    "surprise_anxiety", "anxiety_helplessness", "helplessness_disappointment", "anger_disgust_contempt",
    "anger_disgust_anxiety", "disgust_anxiety_helplessness", "disgust_helplessness_disappointment",
    "fear_sadness_anxiety", "fear_surprise_anxiety", "sadness_anxiety_helplessness",
    "sadness_helplessness_disappointment", "anxiety_helplessness_disappointment",
)  # fmt: skip
_LINE = re.compile(r"(\d+)\.mp4\s+([a-z_]+)", re.IGNORECASE)
_LISTS = "Train & Test Set"

_LAYOUT = f"""\
data/clips/00025.mp4                         video with sound
data/frames/00025/*.png                      or the corpus's own face pictures; the sound comes from data/clips, or
                                             from a sound file 00025.wav anywhere below data
{_LISTS}/{{view}}/no_caption/set_1/train.txt    lines "00025.mp4 anger"; set_1 to set_5, train.txt and test.txt"""

_OBTAIN = (
    "Free for professors and researchers of a university, for non-commercial research alone: sign the academic "
    "agreement of github.com/MAFW-database/MAFW and send it from a university address to the authors. No copies to "
    "third parties; copies within one site of one organization are allowed. Liu et al., ACM Multimedia 2022"
)

_CONFIRMED = (
    "the names data/clips, data/frames, and 'Train & Test Set' with 'single' and 'compound' (MAFW-database/MAFW: "
    "README and its pictures)",
    "lists {view}/no_caption/set_N/train.txt and test.txt with lines '00025.mp4 anger' (preprocessing code in "
    "sunlicai/MAE-DFER and sunlicai/HiCMAE)",
    "classes and their order, 9,172 single and 8,996 compound clips, 5 folds (the corpus's paper, Table 3 and "
    "section 5.1)",
    "of the single lists, the five test parts are disjoint and every training part is all the rest (lists in "
    "sunlicai/HiCMAE, 9,156 clips: it left out 16 of which ffmpeg gave no sound)",
    "the 32 compound names (code of the T-ESFL family that is public); sizes of the folds of both views (a public "
    "inventory of the download)",
)
_UNCONFIRMED = (
    "that data/frames holds one folder a clip with cropped faces as png: the paper says that frames without a face "
    "were deleted and the rest aligned, and public code reads such folders, but the archive was not seen; if the rest "
    "was numbered anew, picture and sound drift apart within a clip",
    "the order of the 43 compound classes in published models; here single classes come first",
    "that the compound lists are a partition; clips that contradict it are rejected one by one",
    "speakers: the corpus names none, so validation is carved clip by clip and people may be in training and test",
)
_FOLD_RULE = (
    "the corpus's own five folds: split foldN is the clips of set_N/test.txt; a clip that is not in exactly one test "
    "list and in the training lists of all other folds is rejected"
)
_PROTOCOL = "best epoch on the test fold, mean of 5 folds (the released code validates on the test list)"


def _read(root: Path, view: str, classes: tuple[str, ...]) -> Native:
    title = f"MAFW ({view})"
    places = [root / _LISTS, *sorted(root.glob(f"*/{_LISTS}"))] if root.is_dir() else []
    lists = next((place / view / "no_caption" for place in places if (place / view / "no_caption").is_dir()), None)
    below = root / "data" if (root / "data").is_dir() else root
    media = find_media(root, below=[below], clip_name=r"\d{5}", skip=[_LISTS])
    if lists is None or not media:
        looked_for = [f"{_LISTS}/{view}/no_caption", "videos in data/clips or folders of frames in data/frames"]
        raise not_this_corpus(root, title, looked_for)
    folds = [(lists / f"set_{n}" / "train.txt", lists / f"set_{n}" / "test.txt") for n in range(1, FOLDS + 1)]
    listed, rejects = read_folds(folds, _read_list)
    collected = Collected(rejects=rejects, left_out=Counter(media.not_opened()))
    for clip in listed:
        if clip.label not in classes:
            collected.reject(clip.name, "unknown_label", f"{clip.label!r} is none of the {len(classes)} classes")
        else:
            collected.add(media.clip(clip.name, split=f"fold{clip.fold}", labels={"emotion": clip.label}))
    if rest := media.unlisted([*(clip.name for clip in listed), *(reject.clip_id for reject in rejects)]):
        collected.left_out[f"in no list of {view}/no_caption"] = rest
    return collected.native(root)


def _read_list(path: Path) -> list[tuple[str, str]]:
    rows = []
    for number, line in read_lines(path):
        match = _LINE.fullmatch(line)
        if match is None:
            raise bad_line(path, number, line, "a clip and its label, such as '00025.mp4 anger'")
        rows.append((match.group(1), match.group(2).lower()))
    return rows


MAFW = Card(
    name="mafw",
    title="MAFW, 11 single expressions",
    labels=LabelSpec(classes={"emotion": SINGLE}),
    folds=FOLDS,
    fold_rule=_FOLD_RULE,
    metrics=("uar", "war"),
    obtain=_OBTAIN,
    layout=_LAYOUT.format(view="single"),
    confirmed=tuple(text.format(view="single") for text in _CONFIRMED),
    unconfirmed=_UNCONFIRMED,
    read=functools.partial(_read, view="single", classes=SINGLE),
    expected=Expected(
        source="Liu et al. (2022), Table 3; folds: a public inventory of the download. The list of the HiCMAE "
        "authors has 9,156: 16 clips without sound are left out of it",
        clips=9172,
        classes={
            "emotion": dict(zip(SINGLE, (1390, 639, 625, 1242, 1138, 1470, 1072, 236, 916, 262, 182), strict=True))
        },
        splits={"fold1": 1839, "fold2": 1837, "fold3": 1833, "fold4": 1832, "fold5": 1831},
    ),
    published=(
        Published(
            method="HiCMAE-B", source="Sun et al., Information Fusion 108 (2024)", protocol=_PROTOCOL,
            scores={"uar": 0.4265, "war": 0.5617},
        ),
        Published(
            method="AVF-MAE++ (H)", source="CVPR 2025", protocol="not known",
            scores={"uar": 0.4605, "war": 0.6024},
        ),
    ),
)  # fmt: skip

MAFW_COMPOUND = Card(
    name="mafw_compound",
    title="MAFW, 43 single and compound expressions",
    labels=LabelSpec(classes={"emotion": (*SINGLE, *COMPOUND)}),
    folds=FOLDS,
    fold_rule=_FOLD_RULE,
    metrics=("uar", "war"),
    obtain=_OBTAIN,
    layout=_LAYOUT.format(view="compound"),
    confirmed=tuple(text.format(view="compound") for text in _CONFIRMED),
    unconfirmed=_UNCONFIRMED,
    read=functools.partial(_read, view="compound", classes=(*SINGLE, *COMPOUND)),
    expected=Expected(
        source="Liu et al. (2022), section 5.1; folds: a public inventory of the download",
        clips=8996,
        splits={"fold1": 1818, "fold2": 1809, "fold3": 1798, "fold4": 1788, "fold5": 1783},
    ),
    published=(
        Published(
            method="HiCMAE-B", source="Sun et al., Information Fusion 108 (2024)", protocol=_PROTOCOL,
            scores={"uar": 0.1329, "war": 0.3736},
        ),
        Published(
            method="T-ESFL", source="Liu et al. (2022), Table 8", protocol="not known, mean of 5 folds",
            scores={"uar": 0.0993, "war": 0.3467},
        ),
    ),
)  # fmt: skip
