"""What was found in a corpus, what of it is used, what not and why: ``report.md``, ``report.json``, ``rejects.csv``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hicmae.benchmarks.card import Expected
from hicmae.data.packed import Reject, write_rejects
from hicmae.prepare.checks import split_order
from hicmae.prepare.tally import Difference, Tally, differences

REPORT_NAME = "report.md"
_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class PrepareReport:
    """A corpus in numbers."""

    name: str
    title: str
    root: str
    found: Tally
    """The clips that the corpus has, as far as its files and labels tell."""
    usable: Tally
    """Those of them that are in the manifest: what could not be read, cut, tracked or packed is not."""
    expected: Expected | None = None
    rejected: tuple[Reject, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Clips that the benchmark does not use, by reason."""
    warnings: tuple[str, ...] = ()
    confirmed: tuple[str, ...] = ()
    unconfirmed: tuple[str, ...] = ()
    stored: Mapping[str, Any] = field(default_factory=dict)
    """What the shards hold; empty where none were written."""
    finished: bool = False
    """False for what is known before anything was made or packed."""

    @property
    def differences(self) -> list[Difference]:
        """How the usable clips differ from the expected counts."""
        return differences(self.expected, self.usable)

    @property
    def as_expected(self) -> bool:
        """Whether nothing was rejected, and no count differs."""
        return not self.rejected and not self.differences

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        expected = self.expected
        return {
            "corpus": self.name,
            "title": self.title,
            "root": self.root,
            "finished": self.finished,
            "found": self.found.to_dict(),
            "usable": self.usable.to_dict(),
            "expected": None if expected is None else {
                "source": expected.source, "clips": expected.clips, "subjects": expected.subjects,
                "classes": {column: dict(names) for column, names in expected.classes.items()},
                "splits": dict(expected.splits),
            },
            "differences": [vars(difference) for difference in self.differences],
            "rejected": dict(Counter(reject.reason for reject in self.rejected)),
            "left_out": dict(self.left_out),
            "warnings": list(self.warnings),
            "confirmed": list(self.confirmed),
            "unconfirmed": list(self.unconfirmed),
            "shards": dict(self.stored),
        }  # fmt: skip

    def write(self, folder: Path) -> Path:
        """Write the three files, each atomically; returns the path of ``report.md``."""
        folder.mkdir(parents=True, exist_ok=True)
        write_rejects(folder / "rejects.csv", self.rejected)
        _write_text(folder / "report.json", json.dumps(self.to_dict(), indent=2) + "\n")
        return _write_text(folder / REPORT_NAME, self.to_markdown())

    def to_markdown(self) -> str:
        """The report for people."""
        parts = [f"# {self.title}\n\n`{self.root}`"]
        if not self.finished:
            parts.append("Nothing was made or packed yet: these are the counts of what was found.")
        parts.append("## Counts\n\n" + _table(["", "expected", "found", "usable", ""], self.counts()))
        if self.expected is not None:
            parts[-1] += f"\n\nExpected: {self.expected.source}."
        if self.warnings:
            parts.append("## Warnings\n\n" + _bullets(self.warnings))
        splits = split_order(self.usable.splits)
        for column, names in self.usable.classes.items():
            parts.append(f"## {column}: usable clips\n\n" + _class_table(names, splits))
        for column, values in self.usable.values.items():
            rows = [[s or "(none)", *(f"{values[s][key]:.4g}" for key in ("clips", "mean", "min", "max"))]
                    for s in splits if s in values]  # fmt: skip
            parts.append(f"## {column}: usable clips\n\n" + _table(["", "clips", "mean", "lowest", "highest"], rows))
        parts += ["## Durations\n\n" + duration_text(self.usable), "## Rejected\n\n" + self._rejects()]
        if self.left_out:
            rows = [[reason, str(count)] for reason, count in self.left_out.items()]
            parts.append("## Not used by this benchmark\n\n" + _table(["reason", "clips"], rows))
        if self.stored:
            rows = [[name, str(value)] for name, value in self.stored.items()]
            parts.append("## Shards\n\n" + _table(["", ""], rows))
        if self.unconfirmed:
            parts.append("## Assumed, and not confirmed by a public source\n\n" + _bullets(self.unconfirmed))
        if self.confirmed:
            parts.append("## Checked against public sources\n\n" + _bullets(self.confirmed))
        return "\n\n".join(parts) + "\n"

    def counts(self) -> list[list[str]]:
        """Rows of (what, expected, found, usable, difference): clips, speakers, splits, and classes of known count."""
        expected, rows = self.expected, []

        def add(what: str, want: int | None, found: int, usable: int) -> None:
            remark = "" if want is None or want == usable else f"{usable - want:+d}"
            rows.append([what, "" if want is None else str(want), str(found), str(usable), remark])

        add("clips", expected.clips if expected else None, self.found.clips, self.usable.clips)
        add("speakers", expected.subjects if expected else None, self.found.subjects, self.usable.subjects)
        known = expected.splits if expected else {}
        for split in split_order({*self.found.splits, *known}):
            counts = (tally.splits.get(split, {}).get("clips", 0) for tally in (self.found, self.usable))
            add(split or "(no split)", known.get(split), *counts)
        for column, names in (expected.classes if expected else {}).items():
            for name, want in names.items():
                add(f"{column} {name}", want, self.found.of_class(column, name), self.usable.of_class(column, name))
        return rows

    def _rejects(self) -> str:
        if not self.rejected:
            return "None."
        rows = [[reason, str(count)] for reason, count in Counter(r.reason for r in self.rejected).most_common()]
        examples = [f"{reject.clip_id}: {reject.detail}" for reject in self.rejected[:_SHOWN]]
        more = len(self.rejected) - _SHOWN
        if more > 0:
            examples.append(f"... and {more} more")
        return f"{_table(['reason', 'clips'], rows)}\n\nAll of them are in `rejects.csv`.\n\n{_bullets(examples)}"


def duration_text(tally: Tally) -> str:
    """One line about the lengths of clips."""
    lengths = tally.durations_s
    if not lengths:
        return "not measured; clips are measured when they are packed"
    part = "" if lengths["clips"] == tally.clips else f" ({lengths['clips']:.0f} of {tally.clips} clips measured)"
    return (
        f"{lengths['total'] / 3600:.2f} hours; clips of {lengths['min']:.2f} to {lengths['max']:.2f} s, median "
        f"{lengths['median']:.2f} s{part}"
    )


def _class_table(names: Mapping[str, Mapping[str, int]], splits: Sequence[str]) -> str:
    rows = [[name, *(str(counts[s]) for s in splits), str(sum(counts.values()))] for name, counts in names.items()]
    sums = [sum(counts[split] for counts in names.values()) for split in splits]
    rows.append(["all", *map(str, sums), str(sum(sums))])
    return _table(["", *(split or "(none)" for split in splits), "all"], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _bullets(texts: Sequence[str]) -> str:
    return "\n".join("- " + text.replace("\n", " ") for text in texts)


def _write_text(path: Path, text: str) -> Path:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
