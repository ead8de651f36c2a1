"""CREMA-D, RAVDESS, MSP-IMPROV and IEMOCAP in miniature."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hicmae.benchmarks.card import Native, NativeClip
from hicmae.data.manifest import Clip
from tests.native_trees.media import face_frame, film, silent_film, sound, split_screen, write


def write_faces(root: Path, clip: str, count: int = 5) -> Path:
    """A folder of face frames of a clip."""
    for number in range(count):
        write(root / "faces" / clip / f"frame_{number:04d}.jpg", face_frame(number))
    return root / "faces" / clip


def build_crema_d(root: Path) -> Native:
    """Thirty clips: of the first and the last actor of each fold, three emotions each."""
    actors = {1: ("1001", "1018"), 2: ("1019", "1036"), 3: ("1037", "1054"), 4: ("1055", "1072"), 5: ("1073", "1091")}
    spoken = (
        (("IEO", "ANG", "HI", "angry"), ("DFA", "DIS", "XX", "disgust"), ("ITH", "FEA", "XX", "fearful")),
        (("IEO", "HAP", "LO", "happy"), ("WSI", "NEU", "XX", "neutral"), ("TIE", "SAD", "XX", "sad")),
    )
    write(root / "README.md", "CREMA-D\n")
    write(root / "SentenceFilenames.csv", '"Stimulus_Number","Filename"\n1,"1001_IEO_ANG_HI"\n')
    rows = []
    for fold, pair in actors.items():
        for actor, clips in zip(pair, spoken, strict=True):
            for sentence, code, level, emotion in clips:
                name = f"{actor}_{sentence}_{code}_{level}"
                clip = Clip(
                    clip_id=name,
                    video=write(root / "VideoFlash" / f"{name}.flv", film("flv")),
                    audio=write(root / "AudioWAV" / f"{name}.wav", sound()),
                    subject=actor,
                    split=f"fold{fold}",
                    labels={"emotion": emotion, "label:sentence": sentence, "label:level": level},
                )
                write(root / "AudioMP3" / f"{name}.mp3", b"not needed")
                rows.append(NativeClip(clip=clip))
    return _native(rows)


def build_crema_d_4(root: Path) -> Native:
    """The same tree; its twenty clips of four emotions."""
    rows = build_crema_d(root).clips
    four = [row for row in rows if row.clip.labels["emotion"] in ("angry", "happy", "neutral", "sad")]
    return _native(four, {"label disgust": 5, "label fearful": 5})


def build_ravdess(root: Path) -> Native:
    """Twenty-four takes: two actors a fold, the eight emotions in turn; with silent films, sounds and songs beside."""
    actors = {1: ("01", "04"), 2: ("05", "08"), 3: ("09", "12"), 4: ("13", "16"), 5: ("17", "20"), 6: ("21", "24")}
    emotions = {
        "01": "neutral", "02": "calm", "03": "happy", "04": "sad",
        "05": "angry", "06": "fearful", "07": "disgust", "08": "surprised",
    }  # fmt: skip
    codes = list(emotions)
    rows = []
    for fold, pair in actors.items():
        for actor in pair:
            for _ in range(2):
                code = codes[len(rows) % 8]
                intensity = "01" if code == "01" else "02"
                take = f"{code}-{intensity}-01-02-{actor}"
                folder = root / f"Video_Speech_Actor_{actor}" / f"Actor_{actor}"
                clip = Clip(
                    clip_id=f"01-01-{take}",
                    video=write(folder / f"01-01-{take}.mp4", film("mp4")),
                    subject=actor,
                    split=f"fold{fold}",
                    labels={"emotion": emotions[code], "label:intensity": "normal" if intensity == "01" else "strong"},
                )
                write(folder / f"02-01-{take}.mp4", silent_film())
                rows.append(NativeClip(clip=clip))
    for take in ("04-01-01-01-01", "05-02-01-01-01", "06-02-01-01-01"):
        write(root / "Video_Song_Actor_01" / "Actor_01" / f"01-02-{take}.mp4", film("mp4"))
        write(root / "Video_Song_Actor_01" / "Actor_01" / f"02-02-{take}.mp4", silent_film())
    spoken = rows[-1].clip.clip_id.removeprefix("01-")
    write(root / "Audio_Speech_Actors_01-24" / "Actor_24" / f"03-{spoken}.wav", sound())
    return _native(rows, {"song": 3})


def build_msp_improv(root: Path) -> Native:
    """Twenty-four turns: two of each of twelve speakers; with three that are left out."""
    emotions = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}
    recordings = {"P": "natural", "R": "read", "S": "improvised", "T": "target"}
    rows: list[NativeClip] = []
    lines = []

    def turn(name: str, code: str, numbers: str) -> tuple[Path, Path]:
        lines.append(f"UTD-IMPROV-{name}.avi; {code}; {numbers} ; N:4.000000;")
        lines.append("M-p01_a; Neutral; Concerned, Other (unsure: tired); A:3.000000; V:3.000000; D:NaN; N:4.000000;")
        lines.append("M-p02_b; Happy; ; A:2.000000; V:4.000000; D:3.000000; N:5.000000;")
        lines.append("")
        sentence, speaker, kind, _ = name.split("-")
        folder = root / f"session{speaker[-1]}" / sentence / kind
        avi = write(folder / f"MSP-IMPROV-{name}.avi", film("avi"))
        return avi, write(folder / f"MSP-IMPROV-{name}.wav", sound())

    for session in range(1, 7):
        for speaker in (f"F0{session}", f"M0{session}"):
            for _ in range(2):
                code, kind = "AHNS"[len(rows) % 4], "PRST"[len(rows) // 4 % 4]
                valence = 1 + len(rows) % 4 + 0.5
                name = f"S0{session}{code}-{speaker}-{kind}-FM{len(rows):02d}"
                # some turns have no rating of dominance
                dominance = None if len(rows) % 5 == 4 else 2.25
                numbers = f"A:3.000000; V:{valence:.6f}; D:{'NaN' if dominance is None else f'{dominance:.6f}'}"
                video, audio = turn(name, code, numbers)
                labels: dict[str, str | float] = {
                    "emotion": emotions[code], "label:recording": recordings[kind], "valence": valence
                }  # fmt: skip
                clip = Clip(
                    clip_id=f"MSP-IMPROV-{name}", video=video, audio=audio, subject=speaker, split=f"fold{session}",
                    labels=labels if dominance is None else labels | {"dominance": dominance},
                )  # fmt: skip
                rows.append(NativeClip(clip=clip))
    turn("S01N-F01-P-FM90", "O", "A:3.000000; V:3.000000; D:3.000000")
    turn("S01N-F01-P-MF91", "X", "A:3.000000; V:3.000000; D:3.000000")
    turn("S06N-M06-P-MF92", "X", "A:3.000000; V:3.000000; D:NaN")
    write(root / "Evalution.txt", "\n".join(lines) + "\n")
    return _native(rows, {"label other": 1, "no agreement of the raters": 2})


def build_iemocap(root: Path) -> Native:
    """Twenty-five utterances: of two dialogues a session, in one of which the woman wears the markers."""
    left, right = (0.2, 0.0, 0.8, 0.5), (0.2, 0.5, 0.8, 1.0)
    emotions = {"ang": "angry", "hap": "happy", "exc": "happy", "neu": "neutral", "sad": "sad"}
    # utterance, start, end, code; where its speaker is, whatever the other half shows
    dialogues = {
        "F_impro01": (
            ("F000", 0.4, 3.0, "neu", left),
            ("M000", 2.6, 5.2, "ang", right),
            ("F001", 5.2, 7.8, "exc", left),
        ),
        "M_script02_1": (("M000", 0.2, 2.8, "sad", left), ("F000", 2.8, 5.6, "hap", right)),
    }
    others = {"F_impro01": ("M001", 7.8, 9.6, "xxx"), "M_script02_1": ("F001", 6.0, 8.0, "fru")}
    rows = []
    for session in range(1, 6):
        folder = root / f"Session{session}"
        for dialogue, utterances in dialogues.items():
            name = f"Ses0{session}{dialogue}"
            video = write(folder / "dialog" / "avi" / "DivX" / f"{name}.avi", split_screen(10.0))
            audio = write(folder / "dialog" / "wav" / f"{name}.wav", sound(10.0, 2))
            lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
            for number, (turn, start_s, end_s, code, region) in enumerate(utterances):
                valence = 1.5 + number
                lines.append(_iemocap_line(f"{name}_{turn}", start_s, end_s, code, valence))
                lines += [
                    "C-E2:\tNeutral;\t()",
                    "A-E3:\tval 3; act 2; dom  2;\t()",
                    "A-F1:\tval 2; act 3; dom  2;\t()",
                    "",
                ]
                write(folder / "sentences" / "wav" / name / f"{name}_{turn}.wav", sound())
                clip = Clip(
                    clip_id=f"{name}_{turn}", video=video, audio=audio, start_s=start_s, end_s=end_s,
                    subject=f"Ses0{session}{turn[0]}", split=f"fold{session}",
                    labels={
                        "emotion": emotions[code], "valence": valence, "arousal": 2.5, "dominance": 3.3333,
                        "label:dialogue": name,
                    },
                )  # fmt: skip
                rows.append(NativeClip(clip=clip, region=region))
            turn, start_s, end_s, code = others[dialogue]
            lines.append(_iemocap_line(f"{name}_{turn}", start_s, end_s, code, 2.0))
            write(folder / "dialog" / "EmoEvaluation" / f"{name}.txt", "\n".join(lines) + "\n")
            write(
                folder / "dialog" / "EmoEvaluation" / "Categorical" / f"{name}_e1_cat.txt",
                f"{name}_F000 :Neutral; ()\n",
            )
            write(
                folder / "dialog" / "transcriptions" / f"{name}.txt", f"{name}_F000 [000.4000-003.0000]: Excuse me.\n"
            )
    return _native(rows, {"label frustrated": 5, "no agreement of the raters": 5})


def _iemocap_line(utterance: str, start_s: float, end_s: float, code: str, valence: float) -> str:
    return f"[{start_s:.4f} - {end_s:.4f}]\t{utterance}\t{code}\t[{valence:.4f}, 2.5000, 3.3333]"


def _native(rows: Sequence[NativeClip], left_out: dict[str, int] | None = None) -> Native:
    return Native(clips=tuple(sorted(rows, key=lambda row: row.clip.clip_id)), left_out=left_out or {})
