"""MAFW, DFEW, MER2023, AVCAffe and Werewolf-XL in miniature; every class and every fold or part occurs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from hicmae.benchmarks.card import Native, NativeClip
from hicmae.data.manifest import Clip
from tests.native_trees.media import put, put_frames, write_lines


def _clip(clip_id: str, video: Path, split: str, labels: dict[str, str | float], subject: str = "") -> NativeClip:
    return NativeClip(clip=Clip(clip_id=clip_id, video=video, split=split, labels=labels, subject=subject))


def _with_frames(native: Native, media: Callable[[Clip], tuple[Path, Path]]) -> Native:
    """The same clips with other (picture, sound)."""
    clips = []
    for found in native.clips:
        video, audio = media(found.clip)
        clips.append(replace(found, clip=replace(found.clip, video=video, audio=audio)))
    return Native(clips=tuple(clips))


# MAFW ------------------------------------------------------------------------------------------------------------

MAFW_LABELS = (
    "anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise", "contempt", "anxiety", "helplessness",
    "disappointment",
)  # fmt: skip
MAFW_COMPOUND_LABELS = ("anger_disgust", "fear_sadness_anxiety", "neutral", "sadness_helplessness", "anger")


def build_mafw(root: Path, *, view: str = "single", labels: Sequence[str] = MAFW_LABELS) -> Native:
    """Three clips of each fold: label ``i`` is that of clip ``i``, tested in fold ``i % 5 + 1``."""
    names = [f"{25 + i:05d}" for i in range(15)]
    label = {name: labels[i % len(labels)] for i, name in enumerate(names)}
    for name in names:
        put(root / "data" / "clips" / f"{name}.mp4")
    put(root / "data" / "clips" / "09999.mp4")  # without a label of this view
    for k in range(5):
        lists = root / "Train & Test Set" / view / "no_caption" / f"set_{k + 1}"
        write_lines(lists / "test.txt", [f"{name}.mp4 {label[name]}" for name in names[k::5]])
        others = [name for i, name in enumerate(names) if i % 5 != k]
        write_lines(lists / "train.txt", [f"{name}.mp4 {label[name]}" for name in others])
    clips = [
        _clip(name, root / "data" / "clips" / f"{name}.mp4", f"fold{i % 5 + 1}", {"emotion": label[name]})
        for i, name in enumerate(names)
    ]
    return Native(clips=tuple(clips), left_out={f"in no list of {view}/no_caption": 1})


def build_mafw_compound(root: Path) -> Native:
    """The same with compound labels."""
    return build_mafw(root, view="compound", labels=MAFW_COMPOUND_LABELS)


def build_mafw_frames(root: Path) -> Native:
    """MAFW with the corpus's face pictures, whose sound is in the videos."""
    frames = root / "data" / "frames"

    def media(clip: Clip) -> tuple[Path, Path]:
        assert clip.video is not None
        return put_frames(frames / clip.clip_id, "{n:05d}.png"), clip.video

    return _with_frames(build_mafw(root), media)


# DFEW ------------------------------------------------------------------------------------------------------------

DFEW_LABELS = ("happy", "sad", "neutral", "angry", "surprised", "disgust", "fearful")


def build_dfew(root: Path) -> Native:
    """Two clips of each fold, as videos; one more clip has no label."""
    numbers = [1, 2, 4, 17, 160, 1600, 1601, 9999, 16001, 16372]
    label = {number: i % 7 + 1 for i, number in enumerate(numbers)}
    parts = root / "EmoLabel_DataSplit"
    for number in (*numbers, 3):
        put(root / "Clip" / "original" / f"data_part_{(number - 1) // 1600 + 1}" / f"{number:05d}.mp4")
    put_frames(root / "Clip" / "clip_224x224_16f" / "00001")  # never used
    for k in range(5):
        test = [number for i, number in enumerate(numbers) if i % 5 == k]
        for part, chosen in (("train", [n for n in numbers if n not in test]), ("test", test)):
            lines = ["video_name,label", *(f"{number},{label[number]}" for number in chosen)]
            write_lines(parts / f"{part}(single-labeled)" / f"set_{k + 1}.csv", lines)
    clips = []
    for i, number in enumerate(numbers):
        video = root / "Clip" / "original" / f"data_part_{(number - 1) // 1600 + 1}" / f"{number:05d}.mp4"
        clips.append(_clip(f"{number:05d}", video, f"fold{i % 5 + 1}", {"emotion": DFEW_LABELS[label[number] - 1]}))
    return Native(clips=tuple(clips), left_out={"in no list: not single-labelled": 1})


def build_dfew_frames(root: Path) -> Native:
    """DFEW with the corpus's face pictures beside sound files that somebody took from the videos."""

    def media(clip: Clip) -> tuple[Path, Path]:
        number = int(clip.clip_id)
        part = root / "Clip" / "clip_224x224" / f"clip_224x224_part_{(number - 1) // 1600 + 1}"
        frames = put_frames(part / clip.clip_id, f"{clip.clip_id}_{{n:05d}}.jpg")
        return frames, put(root / "Clip" / "audio_16k" / f"{number}.WAV")

    return _with_frames(build_dfew(root), media)


# MER2023 ---------------------------------------------------------------------------------------------------------

MER_LABELS = ("neutral", "angry", "happy", "sad", "worried", "surprise")


def build_mer2023(root: Path) -> Native:
    """Eight clips of training and six of MER-MULTI, in the folders that the archives make."""
    train, test = root / "mer2023train", root / "mer2023test1&2" / "test1"
    clips: list[NativeClip] = []
    tables: dict[str, list[str]] = {"train": [], "test": []}
    for i in range(14):
        split, folder = ("train", train / "train") if i < 8 else ("test", test)
        name, emotion, valence = f"sample_{i:08d}", MER_LABELS[i % 6], i / 4 - 2
        video = put(folder / f"{name}.avi")
        tables[split].append(f"{name},{emotion},{valence}")
        emotion = "surprised" if emotion == "surprise" else emotion
        clips.append(_clip(name, video, split, {"emotion": emotion, "valence": valence}))
    put(train / "train" / "sample_00009000.avi")  # without a label
    write_lines(train / "train-label.csv", ["name,discrete,valence", *tables["train"]])
    write_lines(root / "test-labels" / "test1-label.csv", ["name,discrete,valence", *tables["test"]])
    return Native(clips=tuple(clips), left_out={"in train without a label": 1})


# AVCAffe ---------------------------------------------------------------------------------------------------------

AROUSAL = ("Excited", "Wide-awake", "Neutral", "Dull", "Calm")
VALENCE = ("Pleasant", "Pleased", "Neutral", "Unsatisfied", "Unpleasant")
AVCAFFE_TEST = tuple(
    f"aiim{number:03d}"
    for number in (1, 2, 13, 14, 43, 44, 53, 54, 57, 58, 63, 64, 67, 68, 77, 78, 99, 100, 107, 108)
)  # fmt: skip


def build_avcaffe(root: Path) -> Native:
    """Seven participants, two of them of the test part, with two tasks of two clips each."""
    clips: list[NativeClip] = []
    levels: dict[str, list[str]] = {"arousal": [], "valence": []}
    participants = ("aiim001", "aiim003", "aiim004", "aiim005", "aiim006", "aiim007", "aiim108")
    for p, participant in enumerate(participants):
        for task in (1, 2):
            key, i = f"{participant}_task_{task}", 2 * p + task
            own = {"arousal": AROUSAL[i % 5], "valence": VALENCE[(i + 2) % 5]}
            for column, level in own.items():
                levels[column].append(f"{key}, {level}")
            for clip in (1, 2):
                name = f"{key}_clip_{clip:03d}"
                folder = root / "videos" / "shorter_segments" / participant / f"task_{task}"
                labels = {"label:arousal": own["arousal"], "label:valence": own["valence"], "label:task": key}
                split = "test" if participant in AVCAFFE_TEST else "train"
                clips.append(_clip(name, put(folder / f"{name}.avi"), split, dict(labels), participant))
    for column, lines in levels.items():
        write_lines(root / "ground_truths" / f"{column}.txt", lines)
    write_lines(
        root / "ground_truths" / "mental_demand.txt", [line.split(",")[0] + ", 5.0" for line in levels["arousal"]]
    )
    write_lines(root / "info" / "val.txt", AVCAFFE_TEST)
    write_lines(root / "info" / "train.txt", [name for name in participants if name not in AVCAFFE_TEST])
    return Native(clips=tuple(clips))


# Werewolf-XL -----------------------------------------------------------------------------------------------------


def build_werewolf_xl(root: Path) -> Native:
    """Two sessions of each fold, two seats each, one clip a seat, and a listener who is left out."""
    clips: list[NativeClip] = []
    lines = ["VideoName,Categorical,Mean_P_1_2_3_4,Mean_A_1_2,Mean_D_1_2_4,Group"]
    for i, session in enumerate((1, 6, 7, 12, 13, 18, 19, 24, 25, 30)):
        for seat in (1, 4):
            name = f"{session:02d}_{seat:02d}_{128 + i}"
            video = put(root / "Werewolf-XL_Speaker_Video" / f"{session:02d}" / f"{name}.mp4")
            pleasure, arousal, dominance = i / 4 - 0.75, (i + seat) % 4 / 2, seat / 4 - i / 5
            lines.append(f"{name},中性,{pleasure},{arousal},{dominance},speaker")
            labels = {"valence": pleasure, "arousal": arousal, "dominance": dominance}
            clips.append(_clip(name, video, f"fold{(session + 5) // 6}", dict(labels), f"{session:02d}_{seat:02d}"))
    lines.append("01_02_128,中性,0.5,1.0,0.5,listener")
    write_lines(root / "Labels" / "Speaker_202103.csv", lines)
    return Native(clips=tuple(clips), left_out={"group listener": 1})
