"""Training from shards behind URLs: nginx, an S3 server and a hostile one, all on this machine."""

from __future__ import annotations

import itertools
import json
import logging
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hicmae.config import InputSpec, ModelConfig
from hicmae.data.augment import PretrainingDraws
from hicmae.data.batch import ClipBatch
from hicmae.data.cache_settings import CacheSettings
from hicmae.data.epoch import OrderSettings
from hicmae.data.fetch import FetchSettings
from hicmae.data.fetch_error import FetchError
from hicmae.data.loader import LoaderSettings
from hicmae.data.remote import RemoteReader, fetch_index
from hicmae.data.shard_cache import ShardCache
from hicmae.data.shard_source import ShardSource
from hicmae.data.shard_writer import write_shards
from hicmae.data.source import SubsetSource
from hicmae.data.stream import TrainStream
from hicmae.user_errors import explains_itself
from tests.corpus import make_corpus
from tests.hostile_server import HostileServer
from tests.test_stream import assert_same

MODEL = ModelConfig.preset("micro", image_size=32, num_frames=4)
FAST = FetchSettings(attempts=2, connect_s=5.0, stall_s=0.3, backoff_s=0.01)
PATIENT = replace(FAST, stall_s=20.0)  # for what must not fail on a busy machine


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 clips in several shards."""
    folder = tmp_path_factory.mktemp("remote")
    write_shards(make_corpus(folder / "corpus", 22), folder / "shards", shard_mb=0.07)
    return folder / "shards"


@pytest.fixture(scope="module")
def expected(shards: Path) -> list[ClipBatch]:
    """Two epochs of the local stream."""
    return two_epochs(ShardSource(shards))


def sizes(shards: Path) -> list[int]:
    return [tar.stat().st_size for tar in sorted(shards.glob("*.tar"))]


@pytest.fixture
def cache(shards: Path, tmp_path: Path) -> CacheSettings:
    """Room for two windows of two shards, and not for all."""
    room = 4 * max(sizes(shards))
    assert room < sum(sizes(shards))
    return CacheSettings(folder=tmp_path / "cache", max_bytes=room, wait_s=20, fetch=PATIENT)


def stream_of(source: Any, **settings: Any) -> TrainStream:
    return TrainStream(
        source, spec=InputSpec.for_model(MODEL), draws=PretrainingDraws(model=MODEL),
        loader=LoaderSettings(batch_size=2, seed=7, **settings), order=OrderSettings(shuffle_shards=2),
    )  # fmt: skip


def two_epochs(source: Any, **settings: Any) -> list[ClipBatch]:
    stream = stream_of(source, **settings)
    batches = list(itertools.chain(stream, stream))
    stream.close()
    return batches


@contextmanager
def nginx(folder: Path, work: Path) -> Iterator[str]:
    """nginx in the foreground, unprivileged, serving ``folder``; its URL."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed (Debian: apt-get install nginx-light)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    temporary = "\n".join(
        f"{kind}_temp_path {work}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (work / "nginx.conf").write_text(f"""
        daemon off; master_process off; pid {work}/pid; error_log {work}/error.log;
        events {{ worker_connections 64; }}
        http {{
            access_log {work}/access.log; {temporary}
            server {{ listen 127.0.0.1:{port}; root {folder}; location /private/ {{ deny all; }} }}
        }}
    """)
    process = subprocess.Popen(
        [program, "-p", str(work), "-c", str(work / "nginx.conf"), "-e", str(work / "error.log")],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None:
                assert process.stderr is not None
                pytest.fail(f"nginx did not start: {process.stderr.read().decode()}")
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(5)


@pytest.fixture(scope="module")
def bucket(shards: Path) -> Iterator[str]:
    """The shards in a bucket of an S3 server on this machine."""
    server_module = pytest.importorskip("moto.server", reason="moto is not installed (pip install 'moto[server]')")
    boto3 = pytest.importorskip("boto3")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="clips")
        for file in shards.iterdir():
            if file.is_file():
                client.upload_file(str(file), "clips", f"set 1/{file.name}")
        yield "s3://clips/set 1"
    server.stop()


def test_an_epoch_from_nginx_is_the_local_one_bit_for_bit(
    shards: Path, expected: list[ClipBatch], cache: CacheSettings, tmp_path: Path
) -> None:
    with nginx(shards.parent, tmp_path) as url:
        source = ShardSource(f"{url}/shards/", cache)
        assert source.fingerprint == ShardSource(shards).fingerprint  # a run may go on from either
        assert source.shard_names[0] == f"{url}/shards/shard-000000.tar"
        assert_same(two_epochs(source, num_workers=2), expected)
        asked = Counter(line.split('"')[1].split()[1] for line in (tmp_path / "access.log").read_text().splitlines())
    used = sum(file.stat().st_size for file in (cache.folder / "shards").iterdir())
    assert 0 < used <= cache.max_bytes
    assert asked["/shards/index.json"] == asked["/shards/clips.arrow"] == 1
    tars = {name: count for name, count in asked.items() if name.endswith(".tar")}
    assert len(tars) == len(sizes(shards)) < sum(tars.values())  # the second epoch had to fetch what was evicted


def test_nginx_refusals_are_explained(shards: Path, cache: CacheSettings, tmp_path: Path) -> None:
    with nginx(shards.parent, tmp_path) as url:
        match = rf"{url}/nowhere/index.json: the server answered 404 .*check the URL"
        with pytest.raises(FetchError, match=match) as caught:
            ShardSource(f"{url}/nowhere", cache)
        assert explains_itself(caught.value)  # one line at the command line, no traceback
        with pytest.raises(FetchError, match=rf"{url}/private/index.json: the server answered 403 .*credentials"):
            ShardSource(f"{url}/private", cache)


def test_an_epoch_from_s3_is_the_local_one_bit_for_bit(
    bucket: str, expected: list[ClipBatch], cache: CacheSettings
) -> None:
    assert_same(two_epochs(ShardSource(bucket, cache)), expected)
    assert len(ShardSource(f"{bucket}/index.json", cache)) == 22


def test_s3_refusals_are_explained(bucket: str, cache: CacheSettings) -> None:
    with pytest.raises(FetchError, match=r"s3://clips/none/index.json: .* 404 .*\(NoSuchKey\); check") as caught:
        ShardSource("s3://clips/none", cache)
    assert "Signature" not in str(caught.value)
    with pytest.raises(FetchError, match=r"404 .*\(NoSuchBucket\)"):
        ShardSource("s3://none/clips", cache)


def test_s3_without_credentials_or_s3fs_says_what_to_do(cache: CacheSettings, tmp_path: Path) -> None:
    script = (
        "import pickle, sys; from hicmae.data.shard_source import ShardSource\n"
        "if sys.argv[2] == 'absent': sys.modules['s3fs'] = None\n"
        "ShardSource('s3://clips/set', pickle.loads(bytes.fromhex(sys.argv[1])))\n"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    clean |= {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}

    def error(*, s3fs: str) -> str:
        command = [sys.executable, "-c", script, pickle.dumps(cache).hex(), s3fs]
        return subprocess.run(command, env=clean, capture_output=True, text=True, timeout=30).stderr

    assert "pip install 'hicmae[remote]'" in error(s3fs="absent").splitlines()[-1]
    assert "no usable credentials" in error(s3fs="present")


def test_data_that_stop_end_the_stream_with_shard_and_url(shards: Path, cache: CacheSettings) -> None:
    with HostileServer(shards) as server:
        source = ShardSource(server.url, replace(cache, fetch=FAST))
        server.faults["shard-000002.tar"].append("always stall")
        for num_workers in (0, 1):
            stream = stream_of(source, num_workers=num_workers)
            started = time.monotonic()
            with pytest.raises(FetchError) as caught:
                list(stream)
            assert re.fullmatch(rf"{server.url}/shard-000002.tar .*2 attempts.*stalled.*", str(caught.value))
            assert explains_itself(caught.value)  # the worker's own sentence, without its traceback
            assert time.monotonic() - started < 30  # most of it for a new process
            assert not stream.skipped  # it is not a matter of single clips
            stream.close()


def test_workers_of_a_machine_share_one_download_and_survive_faults(
    shards: Path, expected: list[ClipBatch], cache: CacheSettings, caplog: pytest.LogCaptureFixture
) -> None:
    roomy = replace(cache, max_bytes=sum(sizes(shards)), fetch=replace(FAST, stall_s=2.0))
    with HostileServer(shards) as server:
        for number, fault in enumerate(("500", "truncate", "wrong", "close", "stall")):
            server.faults[f"shard-{number:06d}.tar"].append(fault)
        assert_same(two_epochs(ShardSource(server.url, roomy), num_workers=2), expected)
        tars = [count for name, count in server.requests.items() if name.endswith(".tar")]
        assert sorted(tars) == [1] * (len(tars) - 5) + [2] * 5  # in two epochs, by two processes


def test_prefetching_by_groups(shards: Path, cache: CacheSettings) -> None:
    roomy = replace(cache, max_bytes=sum(sizes(shards)))
    with HostileServer(shards) as server:
        source = ShardSource([server.url], roomy)
        subset = SubsetSource(source, [len(source) - 1], "the last")  # its only group is the last shard
        subset.prefetch([0])
        last = f"shard-{len(sizes(shards)) - 1:06d}.tar"
        wait_for(lambda: len(list((cache.folder / "shards").glob("*"))) == 1)
        source.prefetch(range(len(source.group_sizes)))
        wait_for(lambda: len(list((cache.folder / "shards").glob("*"))) == len(sizes(shards)))
        server.faults[last].append("always 500")
        assert pickle.loads(pickle.dumps(source)).read(len(source) - 1).video  # noqa: S301
        assert {count for name, count in server.requests.items() if name.endswith(".tar")} == {1}
    ShardSource(shards).prefetch([0])  # nothing to do for local shards


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_open_files_are_limited_and_evicted_ones_closed(
    shards: Path, cache: CacheSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ShardSource(f"file://{shards}", replace(cache, max_bytes=2 * max(sizes(shards))))
    reader = source._remote
    assert isinstance(reader, RemoteReader)
    local = ShardSource(shards)
    for number in range(len(source)):
        assert source.read(number) == local.read(number)
        assert len(reader) <= 2  # more are not in the cache, and would take room unseen
    monkeypatch.setattr("hicmae.data.remote._OPEN_FILES", 1)
    source.read(0)
    source.read(len(source) - 1)
    assert len(reader) == 1


def test_a_changed_index_does_not_disturb_a_running_job(shards: Path, cache: CacheSettings, tmp_path: Path) -> None:
    served = Path(shutil.copytree(shards, tmp_path / "served"))
    with HostileServer(served) as server:
        first = ShardSource(server.url, cache)
        data = pickle.dumps(first)
        write_shards(make_corpus(tmp_path / "corpus", 6), tmp_path / "other", shard_mb=0.07)
        shutil.rmtree(served)
        shutil.copytree(tmp_path / "other", served)
        assert len(ShardSource(server.url, cache)) == 6
        again = pickle.loads(data)  # noqa: S301  # as a worker does that starts now
        assert [again.info(i) for i in range(22)] == [first.info(i) for i in range(22)]
        with pytest.raises(FetchError, match=r"SHA-256|bytes, the index says"):
            again.read(0)  # but its shards are gone


def test_the_index_is_checked(shards: Path, cache: CacheSettings, tmp_path: Path) -> None:
    served = Path(shutil.copytree(shards, tmp_path / "served"))
    with HostileServer(served) as server:
        values = json.loads((served / "index.json").read_text())
        (served / "clips.arrow").write_bytes((shards / "clips.arrow").read_bytes()[:-1])
        with pytest.raises(FetchError, match=r"clips.arrow .*SHA-256"):
            ShardSource(server.url, cache)
        shutil.copy(shards / "clips.arrow", served)
        for changes, message in (
            ({"schema": 1}, f"{server.url}: .*schema 1 is not known"),
            ({"clips": {}}, "not a shard index"),
            ({"shards": [{**values["shards"][0], "sha256": "../x"}, *values["shards"][1:]]}, "not a SHA-256"),
            ({"shards": [{**values["shards"][0], "name": "../x"}, *values["shards"][1:]]}, "not a plain file name"),
        ):
            (served / "index.json").write_text(json.dumps(values | changes))
            with pytest.raises(ValueError, match=message):
                ShardSource(server.url, cache)
        (served / "index.json").write_text("<html>please log in</html>")
        with pytest.raises(ValueError, match=f"{server.url}/index.json: not a shard index"):
            ShardSource(server.url, cache)


def test_urls_that_are_not_read_and_urls_without_cache(shards: Path, cache: CacheSettings) -> None:
    for url in ("ftp://host/shards", "pipe:ls", "simplecache::s3://bucket/shards"):
        with pytest.raises(ValueError, match=r"allowed are folders and http://, https://, s3://, file://"):
            ShardSource(url, cache)
        with pytest.raises(ValueError, match="allowed are"):
            fetch_index(url, ShardCache(cache))
    with pytest.raises(ValueError, match="need a cache on this machine"):
        ShardSource(f"file://{shards}")


def test_two_windows_must_fit_the_cache(shards: Path, cache: CacheSettings) -> None:
    source = ShardSource(f"file://{shards}", cache)
    source.check_cache(2)
    with pytest.raises(ValueError, match=r"cannot hold two windows of 3 shards"):
        source.check_cache(3)
    ShardSource(shards).check_cache(3)


def test_local_and_remote_folders_together(shards: Path, cache: CacheSettings, tmp_path: Path) -> None:
    other = make_corpus(tmp_path / "corpus", 4)
    clips = tuple(replace(clip, clip_id=clip.clip_id.replace("clip", "other")) for clip in other.clips)
    write_shards(replace(other, clips=clips), tmp_path / "other")
    source = ShardSource([tmp_path / "other", f"file://{shards}"], cache)
    local = ShardSource([tmp_path / "other", shards])
    assert source.fingerprint == local.fingerprint
    assert [source.read(i) for i in range(26)] == [local.read(i) for i in range(26)]


def test_retries_are_told_once_each(shards: Path, cache: CacheSettings, caplog: pytest.LogCaptureFixture) -> None:
    with HostileServer(shards) as server, caplog.at_level(logging.WARNING):
        server.faults["index.json"].append("500")
        source = ShardSource(server.url, cache)
        server.faults["shard-000000.tar"].append("truncate")
        source.read(0)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "index.json: attempt 1 of 2 failed: the server answered 500" in told[0]
    assert "shard-000000.tar: attempt 1 of 2 failed: cut off after" in told[1]
