"""Tables of features: ``.parquet`` and ``.npz``, written window by window from the journal of a job, a file at a time.

Both hold ``name``, ``window``, ``start_s``, ``end_s``, ``modalities``, ``padded``, one column of vectors for each kind
of feature, and JSON that says how they came about. The same results give the same bytes.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hicmae.backbone import MODALITIES
from hicmae.inference.embedder import FileEmbedding

SUFFIXES = (".parquet", ".npz")
ABOUT = b"hicmae"
_ROWS = 4096  # rows of a row group
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip knows; a true time would make each file another
Tables = Callable[[], Iterator[pa.Table]]
"""Goes through the tables of all files, as often as it is called."""


def table_schema(widths: Mapping[str, int]) -> pa.Schema:
    """Columns of a table whose features have these widths."""
    plain = [("name", pa.string()), ("window", pa.int32()), ("start_s", pa.float64()), ("end_s", pa.float64()),
             ("modalities", pa.string()), ("padded", pa.bool_())]  # fmt: skip
    return pa.schema(plain + [(column, pa.list_(pa.float32(), width)) for column, width in widths.items()])


def embedding_to_bytes(embedding: FileEmbedding, widths: Mapping[str, int]) -> bytes:
    """A file's rows as an Arrow stream, for the journal. Vectors are null where a window has nothing to say there."""
    count = len(embedding.start_s)
    columns: list[pa.Array] = [
        pa.array([embedding.name] * count, pa.string()),
        pa.array(np.arange(embedding.first, embedding.first + count, dtype=np.int32)),
        pa.array(embedding.start_s),
        pa.array(embedding.end_s),
        pa.array(embedding.modalities, pa.string()),
        pa.array(embedding.padded),
    ]
    for column, width in widths.items():
        missing = np.array([not _says(column, modalities) for modalities in embedding.modalities])
        values = pa.array(embedding.features[column].reshape(-1))
        columns.append(pa.FixedSizeListArray.from_arrays(values, width, mask=pa.array(missing)))
    return table_to_bytes(pa.Table.from_arrays(columns, schema=table_schema(widths)))


def table_to_bytes(table: pa.Table) -> bytes:
    """A table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def table_from_bytes(data: bytes) -> pa.Table:
    """The inverse of ``table_to_bytes``."""
    return pa.ipc.open_stream(data).read_all()


def _says(column: str, modalities: str) -> bool:
    if column == "pooled":
        return bool(modalities)
    if column.startswith("fused"):
        return modalities == "+".join(MODALITIES)
    return column.split("_")[0] in modalities.split("+")


def write_embeddings(out: Path, tables: Tables, widths: Mapping[str, int], about: Mapping[str, Any]) -> None:
    """Write the table, which appears when it is whole.

    Args:
        out: ``.parquet`` or ``.npz``.
        tables: of all files.
        widths: of the features.
        about: JSON values to store with it.
    """
    draft = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        if out.suffix == ".parquet":
            _write_parquet(draft, tables(), table_schema(widths), json.dumps(about))
        else:
            _write_npz(draft, tables, widths, json.dumps(about))
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)


def read_about(path: Path) -> dict[str, Any] | None:
    """What a table says of itself; None for a file that is none of ours."""
    try:
        if path.suffix == ".parquet":
            text = (pq.read_schema(path).metadata or {}).get(ABOUT, b"null")
        else:
            with np.load(path, allow_pickle=False) as arrays:
                text = str(arrays["about"])
        about = json.loads(text)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return about if isinstance(about, dict) else None


def _write_parquet(path: Path, tables: Iterator[pa.Table], schema: pa.Schema, about: str) -> None:
    waiting: list[pa.Table] = []
    rows = 0
    with pq.ParquetWriter(path, schema.with_metadata({ABOUT: about.encode()})) as writer:
        for table in tables:
            waiting.append(table)
            rows += len(table)
            if rows >= _ROWS:
                writer.write_table(pa.concat_tables(waiting).replace_schema_metadata(writer.schema.metadata))
                waiting, rows = [], 0
        if waiting:
            writer.write_table(pa.concat_tables(waiting).replace_schema_metadata(writer.schema.metadata))


def _write_npz(path: Path, tables: Tables, widths: Mapping[str, int], about: str) -> None:
    rows, longest = 0, {"name": 1, "modalities": 1}
    for table in tables():
        rows += len(table)
        for column in longest:
            longest[column] = max(longest[column], *map(len, table[column].to_pylist()))
    kinds = {"name": np.dtype(f"<U{longest['name']}"), "window": np.dtype("<i4"), "start_s": np.dtype("<f8"),
             "end_s": np.dtype("<f8"), "modalities": np.dtype(f"<U{longest['modalities']}"),
             "padded": np.dtype("?")}  # fmt: skip
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _add_array(archive, "about", (), np.dtype(f"<U{len(about)}"), iter([np.array(about)]))
        for column in table_schema(widths).names:
            kind = kinds.get(column, np.dtype("<f4"))
            shape = (rows, widths[column]) if column in widths else (rows,)
            parts = (_values(table, column, kind, shape[1:]) for table in tables())
            _add_array(archive, column, shape, kind, parts)


def _values(table: pa.Table, column: str, kind: np.dtype[Any], width: tuple[int, ...]) -> NDArray[Any]:
    if not width:
        return np.array(table[column].to_pylist(), dtype=kind)
    chunk = table[column].combine_chunks()
    values: NDArray[Any] = chunk.values.to_numpy(zero_copy_only=False).reshape(-1, *width).astype(kind)
    values[chunk.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return values


def _add_array(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], kind: np.dtype[Any], parts: Iterator[NDArray[Any]]
) -> None:
    with archive.open(zipfile.ZipInfo(f"{name}.npy", _EPOCH), "w", force_zip64=True) as file:
        header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part).tobytes())
