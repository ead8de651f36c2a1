"""Label files as corpora ship them: lines and tables, with errors that name file, line and remedy."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

_SHOWN_CHARACTERS = 120
_SHOWN_LINES = 20


def bad_line(path: Path, number: int, content: str, expected: str) -> ValueError:
    """The error for a line that cannot be read; ``expected`` shows what such a line looks like."""
    return ValueError(
        f"{path}, line {number}: {content[:_SHOWN_CHARACTERS]!r} is not {expected}; correct the line, or unpack the "
        "file again"
    )


def malformed(problems: Sequence[tuple[Path, int, str]], form: str) -> ValueError:
    """The error for all lines that cannot be read: file, line, what is there, and what should be (first 20)."""
    shown = [f"{path}, line {number}: {line[:_SHOWN_CHARACTERS]!r}" for path, number, line in problems[:_SHOWN_LINES]]
    more = [f"... and {len(problems) - _SHOWN_LINES} more"] if len(problems) > _SHOWN_LINES else []
    text = "\n  ".join(shown + more)
    return ValueError(f"label lines that are not of the form {form!r}; copy the file from the corpus again:\n  {text}")


def labelled_twice(places: Sequence[tuple[Path, int]]) -> str:
    """What is wrong with a clip that label files name in several (file, line)."""
    return f"labelled in {' and in '.join(f'{path}, line {number}' for path, number in places)}; remove all but one"


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file that hold something, stripped, with their numbers from 1."""
    lines = [(number, line.strip()) for number, line in enumerate(_text(path).splitlines(), start=1)]
    return [(number, line) for number, line in lines if line]


def read_table(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with a header, with the number of their last line; names of columns in lower case.

    Raises:
        ValueError: a column is missing, or a row has another number of values.
    """
    reader = csv.reader(io.StringIO(_text(path), newline=""))
    header = [name.strip().lower() for name in next(reader, [])]
    if missing := [name for name in columns if name not in header]:
        raise ValueError(
            f"{path} has no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, header)) or 'none'}"
        )
    rows = []
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise bad_line(path, reader.line_num, ",".join(cells), f"a row of {len(header)} values")
        rows.append((reader.line_num, dict(zip(header, (cell.strip() for cell in cells), strict=True))))
    return rows


def csv_header(path: Path) -> list[str]:
    """Names of a CSV file's columns in lower case, from its first line alone."""
    with path.open("rb") as file:
        line = file.readline(1 << 16)
    return [name.strip().lower() for name in next(csv.reader([_decode(line, path)]), [])]


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such label file; unpack the labels of the corpus there")
    return _decode(path.read_bytes(), path)


def _decode(data: bytes, path: Path) -> str:
    # Three of the corpora are Chinese, and their tables may be saved by a Chinese Windows.
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ValueError(f"{path}: neither UTF-8 nor GB 18030 text; save it as UTF-8")
