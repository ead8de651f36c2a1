from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hicmae.data.cache_settings import CacheSettings
from hicmae.data.fetch import FetchSettings
from hicmae.data.fetch_error import FetchError
from hicmae.data.file_lock import hold_lock
from hicmae.data.prefetch import Prefetcher
from hicmae.data.shard_cache import RemoteShard, ShardCache
from tests.hostile_server import HostileServer

SIZE = 20_000
FAST = FetchSettings(attempts=2, connect_s=5.0, stall_s=0.3, backoff_s=0.01)
PATIENT = replace(FAST, stall_s=20.0)  # for what must not fail on a busy machine

# another process of this machine: reads the first bytes of shards in turn
READER = """
import os, pickle, sys
cache, shards = pickle.loads(bytes.fromhex(sys.argv[1]))
for shard in shards:
    handle = cache.open(shard)
    print(os.pread(handle, 8, 0).hex(), flush=True)
    os.close(handle)
"""


class Origin:
    """Five shards on a server, and a cache folder for them."""

    def __init__(self, server: HostileServer, folder: Path, cache_folder: Path) -> None:
        self.server = server
        self.cache_folder = cache_folder
        self.data = [bytes([number]) * SIZE for number in range(5)]
        self.shards = []
        for number, data in enumerate(self.data):
            name = f"shard-{number}.tar"
            (folder / name).write_bytes(data)
            sha256 = hashlib.sha256(data).hexdigest()
            self.shards.append(RemoteShard(url=f"{server.url}/{name}", bytes=SIZE, sha256=sha256))

    def cache(self, *, fits: float = 10, **settings: Any) -> ShardCache:
        defaults: dict[str, Any] = {"wait_s": 20.0, "fetch": PATIENT}
        return ShardCache(CacheSettings(folder=self.cache_folder, max_bytes=int(fits * SIZE), **(defaults | settings)))

    def process(self, cache: ShardCache, numbers: list[int]) -> subprocess.Popen[str]:
        argument = pickle.dumps((cache, [self.shards[number] for number in numbers])).hex()
        return subprocess.Popen(
            [sys.executable, "-c", READER, argument], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Origin]:
    (tmp_path / "served").mkdir()
    with HostileServer(tmp_path / "served") as server:
        yield Origin(server, tmp_path / "served", tmp_path / "cache")


def content(cache: ShardCache, shard: RemoteShard) -> bytes:
    handle = cache.open(shard)
    try:
        return os.pread(handle, SIZE + 1, 0)
    finally:
        os.close(handle)


def names(cache: ShardCache) -> set[str]:
    return {path.stem for path in (cache.folder / "shards").iterdir()}


def _bytes_by_inode(*folders: Path) -> int:
    """Bytes in folders, a file that moves from the first to the next meanwhile counted once."""
    found = {}
    for entry in (entry for folder in folders for entry in os.scandir(folder)):
        with contextlib.suppress(FileNotFoundError):
            found[entry.inode()] = entry.stat().st_size
    return sum(found.values())


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_a_shard_is_fetched_once_and_kept(origin: Origin) -> None:
    cache = origin.cache()
    for _ in range(2):
        assert [content(cache, shard) for shard in origin.shards] == origin.data
        cache = origin.cache()  # as after a restart
    assert set(origin.server.requests.values()) == {1}
    assert cache.used_bytes() == 5 * SIZE
    assert not list((cache.folder / "partial").iterdir())


def test_a_copy_cut_by_somebody_is_fetched_again(origin: Origin) -> None:
    cache = origin.cache()
    content(cache, origin.shards[0])
    (path,) = (cache.folder / "shards").iterdir()
    path.write_bytes(origin.data[0][:-1])
    assert content(cache, origin.shards[0]) == origin.data[0]
    assert origin.server.requests["shard-0.tar"] == 2


def test_a_wrong_hash_never_gets_a_name(origin: Origin) -> None:
    cache = origin.cache()
    origin.server.faults["shard-0.tar"].append("always wrong")
    with pytest.raises(FetchError, match=r"shard-0.tar .*2 attempts.*SHA-256.*upload"):
        cache.open(origin.shards[0])
    assert cache.used_bytes() == 0
    origin.server.faults["shard-0.tar"].clear()
    assert content(cache, origin.shards[0]) == origin.data[0]


def test_the_shard_used_longest_ago_goes_first(origin: Origin) -> None:
    cache = origin.cache(fits=3.5)
    for number in (0, 1, 2, 0, 3):
        content(cache, origin.shards[number])
        time.sleep(0.02)  # the clock of file times has steps of some milliseconds
    assert names(cache) == {origin.shards[number].sha256 for number in (0, 2, 3)}
    assert origin.server.requests["shard-0.tar"] == 1


def test_an_open_shard_outlives_its_eviction(origin: Origin) -> None:
    cache = origin.cache(fits=1)
    handle = cache.open(origin.shards[0])
    content(cache, origin.shards[1])
    assert names(cache) == {origin.shards[1].sha256}
    assert os.pread(handle, SIZE, 0) == origin.data[0]
    os.close(handle)


def test_two_processes_fetch_each_shard_once(origin: Origin) -> None:
    cache = origin.cache()
    both = [origin.process(cache, [0, 1, 2, 3, 4]) for _ in range(2)]
    expected = "".join(f"{data[:8].hex()}\n" for data in origin.data)
    for process in both:
        out, err = process.communicate(timeout=60)
        assert (out, err) == (expected, "")
    assert dict(origin.server.requests) == {f"shard-{number}.tar": 1 for number in range(5)}


def test_the_bound_holds_at_every_moment(origin: Origin) -> None:
    """Three threads and two processes go round five shards where two and a half fit."""
    cache = origin.cache(fits=2.5, wait_s=20)
    most, errors, over = 0, [], threading.Event()

    def go_round(first: int) -> None:
        try:
            for step in range(12):
                number = (first + step) % 5
                assert content(cache, origin.shards[number]) == origin.data[number]
        except Exception as error:
            errors.append(error)

    def watch() -> None:
        nonlocal most
        while not over.is_set():
            most = max(most, _bytes_by_inode(cache.folder / "partial", cache.folder / "shards"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    processes = [origin.process(cache, [first, 1, 3, 0, 2, 4] * 2) for first in (2, 4)]
    threads = [threading.Thread(target=go_round, args=[first]) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
    over.set()
    watcher.join()
    assert not errors
    assert 2 * SIZE <= most <= 2.5 * SIZE
    assert sum(origin.server.requests.values()) > 10  # shards were evicted and fetched again all the time


def test_a_killed_download_leaves_the_cache_usable(origin: Origin) -> None:
    cache = origin.cache(fits=1)
    origin.server.faults["shard-0.tar"].append("stall")
    process = origin.process(origin.cache(fits=1, fetch=FetchSettings()), [0])
    part = cache.folder / "partial" / origin.shards[0].sha256
    until(lambda: part.exists() and origin.server.requests["shard-0.tar"] == 1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert part.stat().st_size == SIZE
    assert content(cache, origin.shards[1]) == origin.data[1]  # there is room for one: the leftover had to go
    assert not part.exists()
    assert content(cache, origin.shards[0]) == origin.data[0]


@pytest.mark.alone
def test_who_waits_in_vain_says_for_whom(origin: Origin) -> None:
    origin.server.faults["shard-0.tar"].append("stall")
    process = origin.process(origin.cache(fetch=FetchSettings(stall_s=60)), [0])
    until(lambda: origin.server.requests["shard-0.tar"] == 1)
    process.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(FetchError, match=rf"shard-0.tar is held by process {process.pid} on .*0.5 s.*wait_s"):
        origin.cache(wait_s=0.5).open(origin.shards[0])
    assert time.monotonic() - started < 3
    process.kill()
    process.communicate()


def test_a_slow_holder_that_lives_is_waited_for(tmp_path: Path) -> None:
    def work() -> None:
        with hold_lock(tmp_path / "lock", wait_s=1, what="it") as lock:
            held.set()
            for _ in range(15):
                lock._beaten = 0.0  # beats are once a second, this test has less time
                lock.beat()
                time.sleep(0.05)

    held = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    held.wait()
    with hold_lock(tmp_path / "lock", wait_s=0.3, what="it"):
        assert not thread.join(1)


def test_those_who_waited_for_a_failed_download_do_not_try_one_by_one(origin: Origin) -> None:
    cache = origin.cache(fetch=FAST)
    origin.server.faults["shard-0.tar"].append("always stall")
    messages: list[str] = []

    def open_one() -> None:
        with pytest.raises(FetchError) as caught:
            cache.open(origin.shards[0])
        messages.append(str(caught.value))

    threads = [threading.Thread(target=open_one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert origin.server.requests["shard-0.tar"] == FAST.attempts
    assert len(messages) == 6
    assert sum("found by another process" in message for message in messages) == 5
    with pytest.raises(FetchError):  # a new request tries anew
        cache.open(origin.shards[0])
    assert origin.server.requests["shard-0.tar"] == 2 * FAST.attempts


def test_a_full_disk_is_told_with_folder_and_numbers(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    cache = origin.cache()
    monkeypatch.setattr(os, "posix_fallocate", no_room)
    with pytest.raises(FetchError, match=rf"no room for {SIZE} bytes in {cache.folder}, where \d+ are free"):
        cache.open(origin.shards[0])
    assert cache.used_bytes() == 0
    assert not origin.server.requests


def test_a_shard_beyond_the_whole_cache_is_refused(origin: Origin) -> None:
    with pytest.raises(FetchError, match=rf"has {SIZE} bytes, the whole cache may take {SIZE // 2}"):
        origin.cache(fits=0.5).open(origin.shards[0])


def test_room_taken_by_other_downloads_is_waited_for_and_then_told(origin: Origin) -> None:
    origin.server.faults["shard-0.tar"].append("stall")
    process = origin.process(origin.cache(fits=1.5, fetch=FetchSettings(stall_s=60)), [0])
    until(lambda: origin.server.requests["shard-0.tar"] == 1)
    with pytest.raises(FetchError, match=rf"no room for {SIZE} bytes .*{SIZE} are shards being fetched"):
        origin.cache(fits=1.5, wait_s=0.3).open(origin.shards[1])
    process.kill()
    process.communicate()
    assert content(origin.cache(fits=1.5), origin.shards[1]) == origin.data[1]


def test_two_windows_have_to_fit(origin: Origin) -> None:
    origin.cache(fits=5).check_capacity([SIZE] * 5, 8)
    origin.cache(fits=4).check_capacity([SIZE] * 5, 2)
    with pytest.raises(ValueError, match=r"0.1 MB cannot hold two windows of 3 shards, .*up to 0.1 MB \(7 shards"):
        origin.cache(fits=5.9).check_capacity([SIZE] * 7, 3)


def test_prefetching_brings_shards_while_others_are_read(origin: Origin) -> None:
    cache = origin.cache()
    prefetcher = Prefetcher(cache)
    prefetcher.request(origin.shards[1:4])
    copy = pickle.loads(pickle.dumps(prefetcher))  # noqa: S301
    assert prefetcher.wait(20)
    assert names(cache) == {shard.sha256 for shard in origin.shards[1:4]}
    content(cache, origin.shards[2])
    assert origin.server.requests["shard-2.tar"] == 1
    copy.request(origin.shards)  # elsewhere: what is here already costs nothing
    assert copy.wait(20)
    assert set(origin.server.requests.values()) == {1}
    assert len(origin.server.requests) == 5


def test_a_new_request_replaces_what_has_not_begun(origin: Origin) -> None:
    origin.server.faults["shard-0.tar"].append("stall")
    prefetcher = Prefetcher(origin.cache(fetch=replace(FAST, stall_s=1.0)))
    prefetcher.request(origin.shards[:4])
    until(lambda: origin.server.requests["shard-0.tar"] == 1)
    prefetcher.request([origin.shards[4]])
    assert prefetcher.wait(20)
    assert set(origin.server.requests) == {"shard-0.tar", "shard-4.tar"}


def test_failed_prefetching_is_told_and_left_to_the_reader(origin: Origin, caplog: pytest.LogCaptureFixture) -> None:
    origin.server.faults["shard-0.tar"].append("always 403")
    prefetcher = Prefetcher(origin.cache())
    with caplog.at_level(logging.WARNING):
        prefetcher.request(origin.shards[:2])
        assert prefetcher.wait(20)
    assert "not fetched ahead of its use" in caplog.text
    assert origin.server.requests["shard-1.tar"] == 1
    with pytest.raises(FetchError, match="credentials"):
        origin.cache().open(origin.shards[0])


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_bytes=0"):
        CacheSettings(folder=tmp_path, max_bytes=0)
    with pytest.raises(ValueError, match="wait_s"):
        CacheSettings(folder=tmp_path, max_bytes=1, wait_s=0)
    with pytest.raises(ValueError, match="not a SHA-256"):
        RemoteShard(url="http://h/a", bytes=1, sha256="../../etc/passwd")
    with pytest.raises(ValueError, match="0 bytes"):
        RemoteShard(url="http://h/a", bytes=0, sha256="0" * 64)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cache folder cannot be made"):
        ShardCache(CacheSettings(folder=tmp_path / "file", max_bytes=1))
