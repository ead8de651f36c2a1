"""Ways to damage a shard folder: functions of the folder and a random generator, a few hundred with their draws."""

from __future__ import annotations

import io
import itertools
import json
import os
import pickle
import random
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from hicmae.data.clip_table import ClipTable
from hicmae.data.packed import PackedClip
from hicmae.data.shard_foreign import index_foreign
from hicmae.data.shard_index import ShardIndex
from hicmae.file_digest import sha256_of

Damage = Callable[[Path, random.Random], None]
MARKER = "pickled-code-ran"  # a file that a loaded pickle would make in the working folder
OTHER = "other"  # a whole folder of another data set, beside the one that is damaged


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """One way, with its draw."""

    name: str
    damage: Damage
    seed: int
    rewritten: bool = False
    """Whether the index was written anew with its hashes: then it is an honest index of other content. Nothing may
    break, and ``verify_shards`` has to find what the tars contradict."""

    def apply(self, folder: Path) -> None:
        self.damage(folder, random.Random(f"{self.name} {self.seed}"))


def mutations() -> Iterator[Mutation]:
    """All of them."""
    for (name, damage), times in _MANY.items():
        for seed in range(times):
            yield Mutation(name=f"{name} {seed}", damage=damage, seed=seed)
    for name, member in _members().items():
        for place, damage in (("front", _prepend), ("end", _append)):
            yield Mutation(name=f"{name} at the {place}", damage=_with(damage, member), seed=0)
        yield Mutation(name=f"{name}, indexed as foreign", damage=_with(_indexed_again, member), seed=0, rewritten=True)
    for name, edit in _json_edits():
        yield Mutation(name=f"index: {name}", damage=_with(_edit_json, edit), seed=0)
    for name, change in _clip_changes().items():
        yield Mutation(name=f"clip: {name}", damage=_with(_edit_clips, change), seed=0, rewritten=True)
    for name, change in _table_changes().items():
        yield Mutation(name=f"table: {name}", damage=_with(_edit_table, change), seed=0, rewritten=True)
    for seed in range(40):
        yield Mutation(name=f"table: flip, hash renewed {seed}", damage=_flip_table, seed=seed, rewritten=True)


def _with(damage: Callable[..., None], argument: Any) -> Damage:
    return lambda folder, rng: damage(folder, rng, argument)


# Bytes of files.


def _tar(folder: Path, rng: random.Random) -> Path:
    return rng.choice(sorted(folder.glob("*.tar")))


def _headers(tar: Path) -> list[tuple[int, int]]:
    """(offset of the header, offset of the data's end) of each member."""
    with tarfile.open(tar) as file:
        return [(member.offset, member.offset_data + member.size) for member in file]


def _flip(path: Path, place: int, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _cut(path: Path, size: int) -> None:
    os.truncate(path, size)


def _cut_tar(folder: Path, rng: random.Random) -> None:
    tar = _tar(folder, rng)
    _cut(tar, rng.randrange(tar.stat().st_size))


def _cut_tar_at_member(folder: Path, rng: random.Random) -> None:
    tar = _tar(folder, rng)
    _cut(tar, rng.choice(_headers(tar))[rng.randrange(2)])


def _flip_tar(folder: Path, rng: random.Random) -> None:
    tar = _tar(folder, rng)
    _flip(tar, rng.randrange(tar.stat().st_size), rng)


def _flip_header(folder: Path, rng: random.Random) -> None:
    tar = _tar(folder, rng)
    _flip(tar, rng.choice(_headers(tar))[0] + rng.randrange(345), rng)


def _flip_media(folder: Path, rng: random.Random) -> None:
    tar = _tar(folder, rng)
    header, end = max(_headers(tar), key=lambda place: (place[1] - place[0], rng.random()))
    _flip(tar, rng.randrange(header + 512, end), rng)


def _zero_block(folder: Path, rng: random.Random) -> None:
    tar = _tar(folder, rng)
    data = bytearray(tar.read_bytes())
    start = rng.randrange(len(data) // 512) * 512
    data[start : start + 512] = bytes(512)
    tar.write_bytes(data)


def _empty_tar(folder: Path, rng: random.Random) -> None:
    _cut(_tar(folder, rng), 0)


def _noise_tar(folder: Path, rng: random.Random) -> None:
    tar = _tar(folder, rng)
    tar.write_bytes(rng.randbytes(tar.stat().st_size))


def _longer_tar(folder: Path, rng: random.Random) -> None:
    with _tar(folder, rng).open("ab") as file:
        file.write(rng.choice([b"x", bytes(512), bytes(10240), rng.randbytes(700)]))


def _missing_tar(folder: Path, rng: random.Random) -> None:
    _tar(folder, rng).unlink()


def _folder_for_tar(folder: Path, rng: random.Random) -> None:
    tar = _tar(folder, rng)
    tar.unlink()
    tar.mkdir()


def _swap_tars(folder: Path, rng: random.Random) -> None:
    first, second = rng.sample(sorted(folder.glob("*.tar")), 2)
    first.rename(folder / "between")
    second.rename(first)
    (folder / "between").rename(second)


def _swap_equal_tars(folder: Path, rng: random.Random) -> None:
    """Another tar in the place of one, cut or filled to its size: the size tells nothing."""
    first, second = rng.sample(sorted(folder.glob("*.tar")), 2)
    size = first.stat().st_size
    first.write_bytes(second.read_bytes()[:size].ljust(size, b"\0"))


def _other_tar(folder: Path, rng: random.Random) -> None:
    tar = _tar(folder, rng)
    size = tar.stat().st_size
    tar.write_bytes((folder.parent / OTHER / "shard-000000.tar").read_bytes()[:size].ljust(size, b"\0"))


def _shift(folder: Path, rng: random.Random) -> None:
    tar = _tar(folder, rng)
    data = tar.read_bytes()
    by = rng.choice([1, 512, 1024])
    tar.write_bytes((data[by:] + data[:by]) if rng.random() < 0.5 else (data[-by:] + data[:-by]))


def _cut_index(folder: Path, rng: random.Random) -> None:
    path = folder / "index.json"
    _cut(path, rng.randrange(path.stat().st_size))


def _flip_index(folder: Path, rng: random.Random) -> None:
    path = folder / "index.json"
    _flip(path, rng.randrange(path.stat().st_size), rng)


def _strange_index(folder: Path, rng: random.Random) -> None:
    path = folder / "index.json"
    text = path.read_text()
    strange = {0: b"", 1: b"null", 2: b"[" * 200_000, 3: text.encode("utf-16"), 4: b"\xff\xfe\xfd", 5: b"{}" * 3,
               6: bytes(path.stat().st_size), 7: b'{"schema": 1e999}', 8: b'"text"'}  # fmt: skip
    path.write_bytes(strange[rng.randrange(len(strange))])


def _other_index(folder: Path, rng: random.Random) -> None:
    shutil.copy(folder.parent / OTHER / "index.json", folder)


def _other_index_and_table(folder: Path, rng: random.Random) -> None:
    _other_index(folder, rng)
    shutil.copy(folder.parent / OTHER / "clips.arrow", folder)


def _other_table(folder: Path, rng: random.Random) -> None:
    shutil.copy(folder.parent / OTHER / "clips.arrow", folder)


def _cut_table(folder: Path, rng: random.Random) -> None:
    path = folder / "clips.arrow"
    _cut(path, rng.randrange(path.stat().st_size))


def _flip_any_table(folder: Path, rng: random.Random) -> None:
    path = folder / "clips.arrow"
    _flip(path, rng.randrange(path.stat().st_size), rng)


def _other_words(folder: Path, rng: random.Random) -> None:
    """As many bytes, and all of them good ones."""
    path = folder / "clips.arrow"
    path.write_bytes(path.read_bytes().replace(b"happy", b"angry").replace(b"subject1", b"subject9"))


def _no_table(folder: Path, rng: random.Random) -> None:
    (folder / "clips.arrow").unlink()


def _longer_table(folder: Path, rng: random.Random) -> None:
    with (folder / "clips.arrow").open("ab") as file:
        file.write(rng.randbytes(8))


def _flip_table(folder: Path, rng: random.Random) -> None:
    _flip_any_table(folder, rng)
    _renew_hash(folder)


_MANY: dict[tuple[str, Damage], int] = {
    ("tar: cut", _cut_tar): 16,
    ("tar: cut at a member", _cut_tar_at_member): 8,
    ("tar: flip", _flip_tar): 10,
    ("tar: flip in a header", _flip_header): 12,
    ("tar: flip in media", _flip_media): 16,
    ("tar: block of zeros", _zero_block): 8,
    ("tar: empty", _empty_tar): 1,
    ("tar: noise", _noise_tar): 2,
    ("tar: longer", _longer_tar): 4,
    ("tar: missing", _missing_tar): 1,
    ("tar: a folder", _folder_for_tar): 1,
    ("tar: shifted", _shift): 6,
    ("tars: swapped", _swap_tars): 2,
    ("tars: swapped, of one size", _swap_equal_tars): 3,
    ("tars: of another data set", _other_tar): 2,
    ("index: cut", _cut_index): 10,
    ("index: flip", _flip_index): 40,
    ("index: strange", _strange_index): 16,
    ("index: of another data set", _other_index): 1,
    ("index and table: of another data set", _other_index_and_table): 1,
    ("table: of another data set", _other_table): 1,
    ("table: cut", _cut_table): 6,
    ("table: flip", _flip_any_table): 30,
    ("table: other words", _other_words): 1,
    ("table: missing", _no_table): 1,
    ("table: longer", _longer_table): 1,
}


# Members that have no place in a tar of clips.


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(MARKER),)


def _members() -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    def member(name: str, data: bytes = b"x" * 100, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        for field, value in fields.items():
            setattr(info, field, value)
        return info, data

    evil = pickle.dumps(_Evil())
    return {
        "pickle": member("clip000.pkl", evil),
        "pyd": member("new.pyd", evil),
        "pth": member("new.pth", evil),
        "npy": member("new.npy", evil),
        "text": member("notes.txt"),
        "no extension": member("README"),
        "path traversal": member("../../outside.mp4"),
        "absolute path": member("/tmp/outside.mp4"),
        "hidden file": member(".mp4"),
        "name of blanks": member("   .mp4"),
        "long name": member("n" * 300 + ".mp4"),
        "not UTF-8": member("\udcff\udcfe.mp4"),
        "duplicate clip": member("clip001.mp4", b"not the first one"),
        "clip that is text": member("text.mp4", b"this is no film\n" * 50),
        "empty clip": member("nothing.mp4", b""),
        "description that is a list": member("clip001.json", b"[1, 2]"),
        "description without end": member("deep.json", b"[" * 100_000),
        "symbolic link": member("link.mp4", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "hard link": member("hard.mp4", b"", type=tarfile.LNKTYPE, linkname="clip000.mp4"),
        "device": member("device.mp4", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
        "pipe": member("pipe.mp4", b"", type=tarfile.FIFOTYPE),
        "folder": member("folder.mp4", b"", type=tarfile.DIRTYPE),
        "huge size": member("huge.mp4", b"", size=2**33),
        "huge size in base 256": member("huge2.mp4", b"", size=2**62),
    }


def _packed(member: tuple[tarfile.TarInfo, bytes]) -> bytes:
    info, data = member
    return info.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape") + data + bytes(-len(data) % 512)


def _prepend(folder: Path, rng: random.Random, member: tuple[tarfile.TarInfo, bytes]) -> None:
    """Everything behind it moves."""
    tar = _tar(folder, rng)
    tar.write_bytes(_packed(member) + tar.read_bytes())


def _append(folder: Path, rng: random.Random, member: tuple[tarfile.TarInfo, bytes]) -> None:
    """In the room at the end, if there is enough: the size of the tar may stay."""
    tar = _tar(folder, rng)
    data = tar.read_bytes()
    end = (_headers(tar)[-1][1] + 511) // 512 * 512
    tar.write_bytes((data[:end] + _packed(member)).ljust(len(data), b"\0"))


def _indexed_again(folder: Path, rng: random.Random, member: tuple[tarfile.TarInfo, bytes]) -> None:
    """The user indexes such tars with 'hicmae shards index'."""
    _append(folder, rng, member)
    for name in ("index.json", "clips.arrow", "plan.json"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "parts", ignore_errors=True)
    index_foreign(folder)


# Values of the index.


def _edit_json(folder: Path, rng: random.Random, edit: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "index.json"
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))


def _json_edits() -> Iterator[tuple[str, Callable[[dict[str, Any]], None]]]:
    for key in ("schema", "storage", "quality", "rejected", "clips", "shards", "made_by", "totals"):
        yield f"without {key}", lambda values, key=key: values.pop(key)
        for wrong in (None, 3, "text", [1], {"a": 1}):
            yield f"{key} = {wrong}", lambda values, key=key, wrong=wrong: values.update({key: wrong})

    def shard(**changes: Any) -> Callable[[dict[str, Any]], None]:
        def edit(values: dict[str, Any]) -> None:
            values["shards"][0].update(
                {
                    key: change(values["shards"][0][key]) if callable(change) else change
                    for key, change in changes.items()
                }
            )

        return edit

    for name in (
        "../shard-000001.tar",
        "/etc/passwd",
        "",
        ".",
        "..",
        "none.tar",
        "index.json",
        "a\0b",
        "shard-000001.tar",
    ):
        yield f"shard named {name!r}", shard(name=name)
    for key in ("bytes", "samples"):
        yield f"{key} of a shard + 1", shard(**{key: lambda n: n + 1})
        yield f"{key} of a shard - 1", shard(**{key: lambda n: n - 1})
        for wrong in (-1, 0, 10**30, "9", None, 1.5, True):
            yield f"{key} of a shard {wrong}", shard(**{key: wrong})
    for wrong in ("0" * 64, "", None, 5):
        yield f"hash of a shard {wrong!r}", shard(sha256=wrong)
    yield "hash of the table", lambda values: values["clips"].update(sha256="0" * 64)
    yield "extra key of a shard", shard(extra=1)
    yield "a shard twice", lambda values: values["shards"].append(values["shards"][0])
    yield "a shard less", lambda values: values["shards"].pop()
    yield "shards reversed", lambda values: values["shards"].reverse()
    yield "no shards", lambda values: values["shards"].clear()
    yield "unknown storage", lambda values: values["storage"].update(video="holograms")
    yield "storage with another size", lambda values: values["storage"].update(size=-5)


# Rows of the table, with the hash written anew.


def _edit_clips(folder: Path, rng: random.Random, change: Callable[[list[PackedClip]], None]) -> None:
    index, _ = ShardIndex.read(folder)
    clips = list(index.clips.clips())
    change(clips)
    rows = iter(clips)
    groups = [list(itertools.islice(rows, shard.samples)) for shard in index.shards]
    replace(index, clips=ClipTable.build(groups)).write(folder)


def _clip_changes() -> dict[str, Callable[[list[PackedClip]], None]]:
    def place(change: Callable[[int, int], tuple[int, int]]) -> Callable[[list[PackedClip]], None]:
        def edit(clips: list[PackedClip]) -> None:
            offset, size = clips[1].members["mp4"]
            clips[1] = replace(clips[1], members=clips[1].members | {"mp4": change(offset, size)})

        return edit

    def field(**changes: Any) -> Callable[[list[PackedClip]], None]:
        def edit(clips: list[PackedClip]) -> None:
            clips[1] = replace(clips[1], **changes)

        return edit

    def same_place(clips: list[PackedClip]) -> None:
        clips[1] = replace(clips[1], members=clips[0].members)

    def swapped(clips: list[PackedClip]) -> None:
        clips[0], clips[1] = (
            replace(clips[0], clip_id=clips[1].clip_id),
            replace(clips[1], clip_id=clips[0].clip_id),
        )

    return {
        "negative offset": place(lambda offset, size: (-512, size)),
        "offset at the header": place(lambda offset, size: (offset - 512, size)),
        "offset by one": place(lambda offset, size: (offset + 1, size)),
        "offset beyond the tar": place(lambda offset, size: (10**9, size)),
        "offset beyond 64 bits with its size": place(lambda offset, size: (2**63 - 1, size)),
        "size of nothing": place(lambda offset, size: (offset, 0)),
        "negative size": place(lambda offset, size: (offset, -size)),
        "size beyond the tar": place(lambda offset, size: (offset, 2**40)),
        "size too large": place(lambda offset, size: (offset, size + 1)),
        "size too small": place(lambda offset, size: (offset, size - 1)),
        "overlaps its neighbour": place(lambda offset, size: (offset + size // 2, size)),
        "place of another clip": same_place,
        "another checksum": field(crc32=12345),
        "no media": field(members={}),
        "an id twice": lambda clips: clips.__setitem__(1, replace(clips[1], clip_id=clips[-1].clip_id)),
        "ids swapped": swapped,
        "span after the end": field(start_s=500.0, end_s=600.0),
        "span that ends before it starts": field(start_s=2.0, end_s=1.0),
        "span of no time": field(start_s=1.0, end_s=1.0),
        "span of infinity": field(start_s=float("inf"), end_s=float("inf")),
        "span before the start": field(start_s=-1e308, end_s=-1e300),
    }  # fmt: skip


def _edit_table(folder: Path, rng: random.Random, change: Callable[[pa.Table], pa.Table]) -> None:
    path = folder / "clips.arrow"
    table = change(pa.ipc.open_file(pa.py_buffer(path.read_bytes())).read_all())
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    _renew_hash(folder)


def _table_changes() -> dict[str, Callable[[pa.Table], pa.Table]]:
    def column(name: str, change: Callable[[list[Any]], list[Any]], kind: pa.DataType | None = None) -> Any:
        def edit(table: pa.Table) -> pa.Table:
            values = change(table.column(name).to_pylist())
            number = table.column_names.index(name)
            return table.set_column(number, name, pa.array(values, kind or table.schema.field(name).type))

        return edit

    return {
        "no rows": lambda table: table.slice(0, 0),
        "a row less": lambda table: table.slice(1),
        "rows twice": lambda table: pa.concat_tables([table, table]),
        "rows reversed": lambda table: table.take(list(range(table.num_rows))[::-1]),
        "no columns": lambda table: table.select([]),
        "no crc32": lambda table: table.drop_columns(["crc32"]),
        "crc32 as text": column("crc32", lambda values: [str(value) for value in values], pa.string()),
        "crc32 with a gap": column("crc32", lambda values: [None, *values[1:]]),
        "crc32 beyond 32 bits": column("crc32", lambda values: [2**40, *values[1:]]),
        "shard -1": column("shard", lambda values: [-1, *values[1:]]),
        "shard beyond all": column("shard", lambda values: [*values[:-1], 99]),
        "shards not ascending": column("shard", lambda values: values[::-1]),
        "offset null": column("video_offset", lambda values: [None, *values[1:]]),
        "offset -2": column("video_offset", lambda values: [-2, *values[1:]]),
        "id null": column("clip_id", lambda values: [None, *values[1:]]),
        "id empty": column("clip_id", lambda values: ["", *values[1:]]),
        "id as a path": column("clip_id", lambda values: ["../../x", *values[1:]]),
        "id of a megabyte": column("clip_id", lambda values: ["x" * 10**6, *values[1:]]),
        "in batches of one row": lambda table: pa.concat_tables([table.slice(i, 1) for i in range(table.num_rows)]),
    }


def _renew_hash(folder: Path) -> None:
    values = json.loads((folder / "index.json").read_text())
    values["clips"]["sha256"] = sha256_of(folder / "clips.arrow")
    (folder / "index.json").write_text(json.dumps(values))


def tar_of(members: dict[str, bytes]) -> bytes:
    """A tar in memory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
