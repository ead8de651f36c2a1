"""Label files in any encoding, and tables that are none."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from hicmae.benchmarks.label_files import csv_header, malformed, read_lines, read_table


def test_lines_keep_their_numbers_whatever_ends_them(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(b"one\r\n\r  two \x1c \x85\n\nthree")
    assert read_lines(path) == [(1, "one"), (3, "two \x1c \x85".strip()), (5, "three")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_encodings_of_chinese(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("name,emotion\n01_01_1,中性\n", encoding=encoding)
    assert read_table(path, ("name",)) == [(2, {"name": "01_01_1", "emotion": "中性"})]
    assert csv_header(path) == ["name", "emotion"]


def test_an_odd_byte_of_a_rater_leaves_the_labels_readable(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes("a; Other (déçu; fâché); 1\nb; 2\n".encode("latin-1"))
    assert read_lines(path) == [(1, "a; Other (déçu; fâché); 1"), (2, "b; 2")]


def test_a_header_is_read_from_the_beginning_alone(tmp_path: Path) -> None:
    path = tmp_path / "features.csv"
    # a character of two bytes lies across the end of what is read
    path.write_bytes(b"\xef\xbb\xbf\nVideoName, Group\n" + b"x" * 65_514 + "éé".encode() * 9)
    assert csv_header(path) == ["videoname", "group"]


def test_a_quotation_mark_that_is_not_closed_is_an_error_of_that_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    rows = "".join(f"clip{i:06d},happy\n" for i in range(csv.field_size_limit() // 10))
    path.write_text('name,emotion\nclip,"happy\n' + rows)
    with pytest.raises(
        ValueError, match=r"labels.csv, line \d+: .* is not a row of a table \(field larger .* not closed"
    ):
        read_table(path, ("name", "emotion"))


def test_columns_that_are_missing_are_named_with_those_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("name;emotion\n1;happy\n")
    with pytest.raises(ValueError, match=r"no column 'name'; it has 'name;emotion'. Columns are separated by commas"):
        read_table(path, ("name",))
    with pytest.raises(FileNotFoundError, match=r"nothing.csv: no such label file; unpack"):
        read_table(tmp_path / "nothing.csv", ("name",))


def test_malformed_lines_are_shown_up_to_twenty() -> None:
    problems = [(Path("labels.txt"), number, f"line {number}") for number in range(1, 24)]
    text = str(malformed(problems, "name label"))
    assert text.count("labels.txt, line") == 20
    assert text.endswith("... and 3 more")
