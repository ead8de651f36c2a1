"""MAFW, DFEW, MER2023, AVCAffe and Werewolf-XL in miniature.

Each builder makes the tree below ``root`` and gives the rows that its manifest must have, by column name; paths are
relative to ``root``. All kinds of labels occur, and every fold or part.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.media_files import make_clip, time_code_picture

Row = dict[str, Any]
FRAMES = 15


@functools.cache
def media_bytes(kind: str) -> bytes:
    """A tiny file of a second: mp4, avi or wav with the tests' time code, or one frame as jpg or png."""
    size, rate = (48, 48), 8000
    if kind == "mp4":
        return make_clip(io.BytesIO(), seconds=1.0, size=size, rate=rate)
    if kind == "avi":
        return make_clip(
            io.BytesIO(), seconds=1.0, size=size, rate=rate, container="avi", video_codec="mpeg4",
            audio_codec="pcm_s16le",
        )  # fmt: skip
    if kind == "wav":
        return make_clip(
            io.BytesIO(), seconds=1.0, rate=rate, with_video=False, container="wav", audio_codec="pcm_s16le"
        )  # fmt: skip
    codec = av.CodecContext.create({"jpg": "mjpeg", "png": "png"}[kind], "w")
    codec.width, codec.height, codec.time_base = *size, 1  # type: ignore[attr-defined]
    codec.pix_fmt = {"jpg": "yuvj420p", "png": "rgb24"}[kind]  # type: ignore[attr-defined]
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(time_code_picture(0.4, *size)), format="rgb24")
    packets = [*codec.encode(frame), *codec.encode(None)]  # type: ignore[attr-defined]
    return b"".join(bytes(packet) for packet in packets)


def put(path: Path) -> Path:
    """A tiny media file of the kind that the name ends in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(media_bytes(path.suffix[1:].lower()))
    return path


def put_frames(folder: Path, kind: str = "jpg", *, name: str = "{n}.{kind}") -> Path:
    """A folder of face frames, numbered without leading zeros."""
    for n in range(1, FRAMES + 1):
        put(folder / name.format(n=n, kind=kind))
    return folder


def write(path: Path, lines: Sequence[str]) -> Path:
    """A text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


# MAFW ------------------------------------------------------------------------------------------------------------

MAFW_LABELS = (
    "anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise", "contempt", "anxiety", "helplessness",
    "disappointment",
)  # fmt: skip
MAFW_COMPOUND_LABELS = ("anger_disgust", "fear_sadness_anxiety", "neutral", "sadness_helplessness", "anger")


def build_mafw(root: Path, *, view: str = "single", labels: Sequence[str] = MAFW_LABELS) -> list[Row]:
    """Three clips of each fold: label ``i`` is that of clip ``i``, tested in fold ``i % 5 + 1``."""
    names = [f"{25 + i:05d}" for i in range(15)]
    label = {name: labels[i % len(labels)] for i, name in enumerate(names)}
    for name in names:
        put(root / "data" / "clips" / f"{name}.mp4")
    put(root / "data" / "clips" / "09999.mp4")  # without a label of this view
    for k in range(5):
        lists = root / "Train & Test Set" / view / "no_caption" / f"set_{k + 1}"
        write(lists / "test.txt", [f"{name}.mp4 {label[name]}" for name in names[k::5]])
        others = [name for i, name in enumerate(names) if i % 5 != k]
        write(lists / "train.txt", [f"{name}.mp4 {label[name]}" for name in others])
    return [
        {"clip_id": name, "video": f"data/clips/{name}.mp4", "split": f"fold{i % 5 + 1}", "emotion": label[name]}
        for i, name in enumerate(names)
    ]


def build_mafw_compound(root: Path) -> list[Row]:
    """The same with compound labels."""
    return build_mafw(root, view="compound", labels=MAFW_COMPOUND_LABELS)


def build_mafw_frames(root: Path) -> list[Row]:
    """MAFW with the corpus's face pictures, whose sound is in the videos."""
    rows = build_mafw(root)
    for row in rows:
        folder = put_frames(root / "data" / "frames" / row["clip_id"], "png", name="{n:05d}.{kind}")
        row |= {"audio": row["video"], "video": str(folder.relative_to(root))}
    return rows


# DFEW ------------------------------------------------------------------------------------------------------------

DFEW_LABELS = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")


def build_dfew(root: Path) -> list[Row]:
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
            write(parts / f"{part}(single-labeled)" / f"set_{k + 1}.csv", lines)
    return [
        {
            "clip_id": f"{number:05d}", "split": f"fold{i % 5 + 1}", "emotion": DFEW_LABELS[label[number] - 1],
            "video": f"Clip/original/data_part_{(number - 1) // 1600 + 1}/{number:05d}.mp4",
        }
        for i, number in enumerate(numbers)
    ]  # fmt: skip


def build_dfew_frames(root: Path) -> list[Row]:
    """DFEW with the corpus's face pictures beside sound files that somebody took from the videos."""
    rows = build_dfew(root)
    for row in rows:
        name, part = row["clip_id"], Path(row["video"]).parent.name.replace("data", "clip_224x224")
        put_frames(root / "Clip" / "clip_224x224" / part / name, name=f"{name}_{{n:05d}}.{{kind}}")
        put(root / "Clip" / "audio_16k" / f"{int(name)}.WAV")
        row |= {"video": f"Clip/clip_224x224/{part}/{name}", "audio": f"Clip/audio_16k/{int(name)}.WAV"}
    return rows


# MER2023 ---------------------------------------------------------------------------------------------------------

MER_LABELS = ("neutral", "angry", "happy", "sad", "worried", "surprise")


def build_mer2023(root: Path) -> list[Row]:
    """Eight clips of training and six of MER-MULTI, in the folders that the archives make."""
    train, test = root / "mer2023train", root / "mer2023test1&2" / "test1"
    rows: list[Row] = []
    tables: dict[str, list[str]] = {"train": [], "test": []}
    for i in range(14):
        split, folder = ("train", train / "train") if i < 8 else ("test", test)
        name, emotion, valence = f"sample_{i:08d}", MER_LABELS[i % 6], i / 4 - 2
        video = put(folder / f"{name}.avi")
        tables[split].append(f"{name},{emotion},{valence}")
        rows.append(
            {
                "clip_id": name, "video": str(video.relative_to(root)), "split": split, "emotion": emotion,
                "valence": valence,
            }
        )  # fmt: skip
    put(train / "train" / "sample_00009000.avi")  # without a label
    write(train / "train-label.csv", ["name,discrete,valence", *tables["train"]])
    write(root / "test-labels" / "test1-label.csv", ["name,discrete,valence", *tables["test"]])
    return rows


# AVCAffe ---------------------------------------------------------------------------------------------------------

AROUSAL = ("Excited", "Wide-awake", "Neutral", "Dull", "Calm")
VALENCE = ("Pleasant", "Pleased", "Neutral", "Unsatisfied", "Unpleasant")
AVCAFFE_TEST = tuple(
    f"aiim{number:03d}"
    for number in (1, 2, 13, 14, 43, 44, 53, 54, 57, 58, 63, 64, 67, 68, 77, 78, 99, 100, 107, 108)
)  # fmt: skip


def build_avcaffe(root: Path) -> list[Row]:
    """Seven participants, two of them of the test part, with two tasks of two clips each."""
    rows: list[Row] = []
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
                rows.append(
                    {
                        "clip_id": name, "video": str(put(folder / f"{name}.avi").relative_to(root)),
                        "subject": participant, "split": "test" if participant in AVCAFFE_TEST else "train",
                        "label:arousal": own["arousal"], "label:valence": own["valence"], "label:task": key,
                    }
                )  # fmt: skip
    for column, lines in levels.items():
        write(root / "ground_truths" / f"{column}.txt", lines)
    write(root / "ground_truths" / "mental_demand.txt", [line.split(",")[0] + ", 5.0" for line in levels["arousal"]])
    write(root / "info" / "val.txt", AVCAFFE_TEST)
    write(root / "info" / "train.txt", [name for name in participants if name not in AVCAFFE_TEST])
    return rows


# Werewolf-XL -----------------------------------------------------------------------------------------------------


def build_werewolf_xl(root: Path) -> list[Row]:
    """Two sessions of each fold, two seats each, one clip a seat, and a listener who is left out."""
    rows: list[Row] = []
    lines = ["VideoName,Categorical,Mean_P_1_2_3_4,Mean_A_1_2,Mean_D_1_2_4,Group"]
    for i, session in enumerate((1, 6, 7, 12, 13, 18, 19, 24, 25, 30)):
        for seat in (1, 4):
            name = f"{session:02d}_{seat:02d}_{128 + i}"
            put(root / "Werewolf-XL_Speaker_Video" / f"{session:02d}" / f"{name}.mp4")
            pleasure, arousal, dominance = i / 4 - 0.75, (i + seat) % 4 / 2, seat / 4 - i / 5
            lines.append(f"{name},中性,{pleasure},{arousal},{dominance},speaker")
            rows.append(
                {
                    "clip_id": name, "video": f"Werewolf-XL_Speaker_Video/{session:02d}/{name}.mp4",
                    "subject": f"{session:02d}_{seat:02d}", "split": f"fold{(session + 5) // 6}",
                    "valence": pleasure, "arousal": arousal, "dominance": dominance,
                }
            )  # fmt: skip
    lines.append("01_02_128,中性,0.5,1.0,0.5,listener")
    write(root / "Labels" / "Speaker_202103.csv", lines)
    return rows


BUILDERS: dict[str, Callable[[Path], list[Row]]] = {
    "mafw": build_mafw,
    "mafw_compound": build_mafw_compound,
    "dfew": build_dfew,
    "mer2023": build_mer2023,
    "avcaffe": build_avcaffe,
    "werewolf_xl": build_werewolf_xl,
}
"""By name of the card."""
