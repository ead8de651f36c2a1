"""Jobs over many files: what is done stays done, what fails is noted, and one process at a time is at an output."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from hicmae.inference import job
from hicmae.inference.items import MediaItem
from hicmae.inference.job import Work, run_job
from hicmae.inference.journal import FileFailure, journal_folder, open_journal, remove_journal
from hicmae.inference.progress import JobProgress
from hicmae.media.clip import DecodeError

ITEMS = [MediaItem(name=name, video=name.encode()) for name in "abcd"]


class _Listener:
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def begin(self, files: int, done: int) -> None:
        self.heard.append((files, done))

    def windows(self, name: str, done: int, total: int) -> None:
        self.heard.append((name, done, total))

    def finished(self, name: str, failure: FileFailure | None) -> None:
        self.heard.append((name, failure.reason if failure else None))


def _begin(calls: list[str], *, interrupt: str = "", bad: str = "") -> Any:
    def begin(device: str) -> Work:
        def work(item: MediaItem, on_windows: Any) -> bytes:
            if item.name == interrupt:
                raise KeyboardInterrupt
            calls.append(item.name)
            if item.name == bad:
                raise DecodeError(item.name, "truncated", "it ends early", "fetch it again")
            on_windows(1, 1)
            return item.name.encode() * 3

        return work

    return begin


def test_an_interrupted_job_goes_on_and_computes_nothing_twice(tmp_path: Path) -> None:
    out, calls = tmp_path / "out", list[str]()
    with open_journal(out, {"a": 1}) as journal, pytest.raises(KeyboardInterrupt):
        run_job(journal, ITEMS, _begin(calls, interrupt="c", bad="b"), devices=["cpu"], listener=_Listener())
    listener = _Listener()
    with open_journal(out, {"a": 1}) as journal:
        report = run_job(journal, ITEMS, _begin(calls, bad="b"), devices=["cpu"], listener=listener)
        results = [journal.result(item) for item in ITEMS if journal.failure(item) is None]
    assert calls == ["a", "b", "c", "d"]
    assert results == [b"aaa", b"ccc", b"ddd"]
    assert (report.files, report.computed, report.status) == (4, 2, 1)
    assert [(failure.name, failure.reason) for failure in report.failures] == [("b", "truncated")]
    assert listener.heard == [(4, 2), ("c", 1, 1), ("c", None), ("d", 1, 1), ("d", None)]


@pytest.mark.parametrize("lost", [1, 5, 20, 100])
def test_a_record_that_was_being_written_counts_for_nothing(lost: int, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with open_journal(out, {}) as journal:
        for item in ITEMS[:2]:
            journal.add(item, item.name.encode() * 40, fingerprint=item.fingerprint())
    records = journal_folder(out) / "records"
    whole = records.read_bytes()
    records.write_bytes(whole[:-lost])
    with open_journal(out, {}) as journal:
        assert [journal.done(item) for item in ITEMS[:2]] == [True, False]
        journal.add(ITEMS[1], b"b" * 40, fingerprint=ITEMS[1].fingerprint())
    assert records.read_bytes() == whole


def test_a_record_with_a_flipped_bit_counts_for_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with open_journal(out, {}) as journal:
        for item in ITEMS:
            journal.add(item, b"x" * 40, fingerprint=item.fingerprint())
    records = journal_folder(out) / "records"
    data = bytearray(records.read_bytes())
    data[-200] ^= 1
    records.write_bytes(data)
    with open_journal(out, {}) as journal:
        assert [journal.done(item) for item in ITEMS] == [True, True, False, False]


def test_a_file_that_has_changed_is_worked_on_again(tmp_path: Path) -> None:
    with open_journal(tmp_path / "out", {}) as journal:
        journal.add(ITEMS[0], b"old", fingerprint=ITEMS[0].fingerprint())
        changed = MediaItem(name="a", video=b"other bytes")
        assert not journal.done(changed)
        journal.add(changed, b"new", fingerprint=changed.fingerprint())
        assert journal.result(changed) == b"new"


def test_a_file_that_changes_under_the_work_is_not_done(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(b"old")
    item = MediaItem(name="a", video=file)

    def begin(device: str) -> Work:
        def work(item: MediaItem, on_windows: Any) -> bytes:
            old = file.read_bytes()
            file.write_bytes(b"another")
            return old

        return work

    with open_journal(tmp_path / "out", {}) as journal:
        run_job(journal, [item], begin, devices=["cpu"], listener=_Listener())
        assert journal.result(item) == b"old"
        assert not journal.done(item)


def test_another_job_and_another_process_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        open_journal(out, {"hop_s": 1.0}),
        pytest.raises(ValueError, match="is being written by process"),
        open_journal(out, {"hop_s": 1.0}),
    ):
        pass
    with (
        pytest.raises(ValueError, match=r"other settings \(hop_s: 1.0 there, 2.0 now\)"),
        open_journal(out, {"hop_s": 2.0}),
    ):
        pass
    remove_journal(out)
    with open_journal(out, {"hop_s": 2.0}):
        pass


def test_a_file_with_which_its_process_dies_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pool(begin: Any, devices: Any, heard: Any, items: list[MediaItem]) -> Iterator[tuple[MediaItem, Any]]:
        for item in items:
            if item.name == "b":
                raise BrokenProcessPool
            yield item, item.name.encode()

    monkeypatch.setattr(job, "_pool", pool)
    with open_journal(tmp_path / "out", {}) as journal:
        report = run_job(journal, ITEMS, _begin([]), devices=["cpu", "cpu"], listener=_Listener())
        assert [journal.result(item) for item in ITEMS] == [b"a", b"", b"c", b"d"]
    assert [(failure.name, failure.reason) for failure in report.failures] == [("b", "crashed")]


def test_a_process_that_cannot_load_the_model_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(device: str) -> Work:
        raise ValueError(f"no memory on {device}")

    monkeypatch.setattr(job, "_worker", None)
    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
    numbers.put(1)
    job._begin_worker(begin, ("cpu", "cuda:0"), numbers, None)
    with pytest.raises(ValueError, match="no memory on cuda:0"):
        job._work_on(ITEMS[0])


def test_progress_without_a_terminal_is_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with JobProgress("embedding") as progress:
        progress.begin(3, 1)
        progress.windows("a", 1, 4)
        progress.finished("a", None)
        progress.finished("b", FileFailure(name="b", reason="truncated", message="b: it was cut [short]"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["1 of 3 files were done before", "failed: b: it was cut [short]"]
    assert lines[2].startswith("embedding: 3 of 3 files, 1 failed, ")


def test_what_processes_say_of_their_windows_is_heard_whole_and_in_order() -> None:
    listener = _Listener()
    said = [("ü\n.mp4", number, 500) for number in range(500)]
    with job._hear_workers(listener) as writer:
        for message in said:
            job._say(writer, message)
        job._say(writer, ("x" * 5000, 1, 1))  # could come in pieces: left out
    assert listener.heard == said
