from __future__ import annotations

import hashlib
import io
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hicmae.data.fetch import FetchSettings, download
from hicmae.data.fetch_error import FetchError
from hicmae.data.urls import check_url, is_url, join_url, shown
from tests.hostile_server import HostileServer

FAST = FetchSettings(attempts=3, connect_s=2.0, stall_s=0.4, backoff_s=0.01)
DATA = bytes(range(256)) * 400
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HostileServer]:
    (tmp_path / "file.tar").write_bytes(DATA)
    with HostileServer(tmp_path) as server:
        yield server


def fetch(url: str, settings: FetchSettings = FAST) -> bytes:
    file = io.BytesIO()
    size = download(url, file, settings=settings, size=len(DATA), sha256=SHA256)
    assert size == len(file.getvalue())
    return file.getvalue()


@pytest.mark.parametrize(
    "url", ["http://h/a", "https://h/a", "s3://bucket/a b", "s3://bucket/\u00e9", "file:///data/a"]
)
def test_schemes_that_are_read(url: str) -> None:
    assert is_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "pipe:cat /etc/passwd", "ftp://h/a", "gs://b/a", "simplecache::http://h/a", "http://h/a::pipe:ls", "http:/h/a",
        "HTTP://h/a", "file://host/a", "file:a", "http:///a", "s3://", "http://h/a b", "http://h/a\r\nX: y", "data:,x",
        "zip://*.tar::s3://b/a", "local::http://h", "http://h/donn\u00e9es",
    ],
)  # fmt: skip
def test_anything_else_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"http://|s3://NAME|file:///|%20|% signs"):
        is_url(url)
    with pytest.raises(ValueError):
        check_url(url)


@pytest.mark.parametrize("url", ["http://[bad/x", "http://h:abc/x", "https://h:99999/x"])
def test_hosts_that_cannot_be_are_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="host and port"):
        check_url(url)


def test_paths_are_no_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run:3").mkdir()
    assert not any(is_url(path) for path in ("shards", "/data/shards", "C:/data", "run:3", "run:3/", Path("run:3")))
    with pytest.raises(ValueError, match="lost a slash"):
        is_url(Path("s3://bucket/shards"))


def test_names_are_joined_and_secrets_not_shown() -> None:
    assert join_url("http://h/a/?sig=x/y", "b c.tar") == "http://h/a/b%20c.tar?sig=x/y"
    assert join_url("s3://bucket/a", "b c.tar") == "s3://bucket/a/b c.tar"
    assert shown("https://me:secret@h:80/a/b@c?sig=secret") == "https://h:80/a/b@c"


@pytest.mark.parametrize("fault", ["500", "503", "429", "close", "stall", "truncate", "trickle", "trickle_head",
                                   "wrong", "longer", "silent"])  # fmt: skip
def test_what_fails_once_is_tried_again_and_told(
    server: HostileServer, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults["file.tar"].append(fault)
    with caplog.at_level(logging.WARNING):
        assert fetch(f"{server.url}/file.tar?token=secret") == DATA
    assert server.requests["file.tar"] == 2
    (record,) = caplog.records
    assert f"{server.url}/file.tar: attempt 1 of 3 failed: " in record.getMessage()
    assert "secret" not in record.getMessage()


@pytest.mark.alone
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("500", "answered 500"),
        ("close", "no connection"),
        ("stall", "stalled: no bytes for 0.4 s after 76800 of 102400"),
        ("truncate", "cut off after 76800 of 102400 bytes"),
        ("trickle", "stalled: "),
        ("trickle_head", "no answer (the head of the answer did not come"),
        ("silent", "no answer (the head of the answer did not come"),
        ("wrong", "SHA-256"),
        ("longer", "it has 102408 bytes, the index says 102400"),
        ("shorter", "it has 51200 bytes, the index says 102400"),
    ],
)
def test_what_fails_always_ends_soon_with_url_attempts_and_reason(
    server: HostileServer, fault: str, reason: str
) -> None:
    server.faults["file.tar"].append(f"always {fault}")
    started = time.monotonic()
    settings = FetchSettings(attempts=2, connect_s=2.0, stall_s=0.4, backoff_s=0.01)
    with pytest.raises(FetchError, match="2 attempts") as caught:
        fetch(f"{server.url}/file.tar", settings)
    assert time.monotonic() - started < 3
    assert f"{server.url}/file.tar" in str(caught.value)
    assert reason in str(caught.value)
    assert server.requests["file.tar"] == 2


@pytest.mark.parametrize(
    ("status", "advice"),
    [("403", "credentials"), ("401", "credentials"), ("404", "check the URL"), ("301", "region")],
)
def test_refusals_are_not_repeated_but_explained(server: HostileServer, status: str, advice: str) -> None:
    server.faults["file.tar"].append(f"always {status}")
    with pytest.raises(FetchError, match=rf"{server.url}/file.tar.*{status}.*{advice}"):
        fetch(f"{server.url}/file.tar")
    assert server.requests["file.tar"] == 1


def test_a_broken_download_goes_on_where_it_broke(server: HostileServer) -> None:
    server.faults["file.tar"] += ["truncate", "truncate"]
    assert fetch(f"{server.url}/file.tar") == DATA
    assert server.ranges == [f"bytes={len(DATA) // 2}-", f"bytes={len(DATA) * 3 // 4}-"]


def test_a_file_that_changed_meanwhile_starts_anew(server: HostileServer, tmp_path: Path) -> None:
    server.faults["file.tar"] += ["truncate", "wrong", ""]
    assert fetch(f"{server.url}/file.tar") == DATA  # the wrong rest was appended, then all of it fetched again
    assert len(server.ranges) == 1


def test_a_server_that_cannot_resume(tmp_path: Path) -> None:
    (tmp_path / "file.tar").write_bytes(DATA)
    with HostileServer(tmp_path, resumes=False) as server:
        server.faults["file.tar"].append("truncate")
        assert fetch(f"{server.url}/file.tar") == DATA
        assert server.ranges == []


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(FetchError, match=rf"127.0.0.1:{port}/x .*3 attempts.*refused"):
        fetch(f"http://127.0.0.1:{port}/x")


def test_a_host_that_does_not_answer_connections() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        held = [socket.socket() for _ in range(4)]
        for connection in held:
            connection.setblocking(False)
            connection.connect_ex(address)
        with pytest.raises(FetchError, match=r"no answer .timed out; allowed are 0.2 s to connect"):
            fetch(f"http://{address[0]}:{address[1]}/x", FetchSettings(attempts=1, connect_s=0.2, stall_s=0.2))
        for connection in held:
            connection.close()


def test_redirects_lead_nowhere_but_to_the_web(server: HostileServer, tmp_path: Path) -> None:
    server.faults["old.tar"].append("to file.tar")
    (tmp_path / "old.tar").touch()
    url = server.url.replace("http://", "http://me:pass%20word@")
    assert fetch(f"{url}/old.tar") == DATA
    assert server.authorizations == ["Basic bWU6cGFzcyB3b3Jk", None]
    for goal in (f"file://{tmp_path}/file.tar", "ftp://127.0.0.1/x"):
        server.faults["old.tar"].append(f"to {goal}")
        with pytest.raises(FetchError):
            fetch(f"{server.url}/old.tar", FetchSettings(attempts=1))


def test_local_files(tmp_path: Path) -> None:
    (tmp_path / "a b.tar").write_bytes(DATA)
    assert fetch(f"file://{tmp_path}/a%20b.tar") == DATA
    with pytest.raises(FetchError, match=r"none.tar cannot be read.*No such file"):
        fetch(f"file://{tmp_path}/none.tar")


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"stall_s": 0}, {"connect_s": -1}, {"backoff_s": float("nan")}])
def test_settings_are_checked(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FetchSettings(**wrong)


def test_a_silent_server_is_told_alike_whichever_clock_goes_off_first(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.faults["file.tar"].append("always silent")
    monkeypatch.setattr("threading.Timer.start", lambda self: None)
    with pytest.raises(FetchError, match="the head of the answer did not come"):
        fetch(f"{server.url}/file.tar")
