"""Label files as corpora ship them: lines and tables, with errors that name file, line and remedy."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Sequence
from pathlib import Path

_SHOWN_CHARACTERS = 120
_SHOWN_LINES = 20
_HEADER_BYTES = 1 << 16


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
    lines = [(number, line.strip()) for number, line in enumerate(_lines(_text(path)), start=1)]
    return [(number, line) for number, line in lines if line]


def read_table(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with a header, with the number of their last line; names of columns in lower case.

    Raises:
        ValueError: a column is missing, or a row has another number of values.
    """
    rows = _rows(path, _text(path))
    header = [name.lower() for name in rows[0][1]] if rows else []
    if missing := [name for name in columns if name not in header]:
        raise ValueError(
            f"{path} has no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, header)) or 'none'}. "
            "Columns are separated by commas; unpack the file again, or save it so"
        )
    for number, cells in rows[1:]:
        if len(cells) != len(header):
            raise bad_line(path, number, ",".join(cells), f"a row of {len(header)} values")
    return [(number, dict(zip(header, cells, strict=True))) for number, cells in rows[1:]]


def csv_header(path: Path) -> list[str]:
    """Names of a CSV file's columns in lower case, from its beginning alone."""
    with path.open("rb") as file:
        beginning = _decode(file.read(_HEADER_BYTES), whole=False)
    first = next((line for line in _lines(beginning) if line.strip()), "")
    return [name.lower() for _, cells in _rows(path, first) for name in cells]


def _rows(path: Path, text: str) -> list[tuple[int, list[str]]]:
    """(number of the last line, stripped cells) of each row that holds something."""
    rows = []
    reader = csv.reader(f"{line}\n" for line in _lines(text))
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                rows.append((reader.line_num, stripped))
    except csv.Error as error:
        expected = f"a row of a table ({error}; is a quotation mark not closed?)"
        raise bad_line(path, reader.line_num, _lines(text)[reader.line_num - 1], expected) from error
    return rows


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such label file; unpack the labels of the corpus there")
    return _decode(path.read_bytes())


def _lines(text: str) -> list[str]:
    # not splitlines(), which takes control characters within a line for its end
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _decode(data: bytes, *, whole: bool = True) -> str:
    # Three of the corpora are Chinese, and their tables may be saved by a Chinese Windows. What a rater wrote may be
    # of any kind; names and labels are ASCII, so Latin-1, which takes every byte, does no harm to them.
    utf16 = ("utf-16",) if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else ()
    for encoding in (*utf16, "utf-8-sig", "gb18030"):
        try:
            return codecs.getincrementaldecoder(encoding)().decode(data, whole)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")
