"""`hicmae serve`: the page, in a real browser without a screen, and its parts without one."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

import hicmae
from hicmae.checkpoint import save_export
from hicmae.cli import main
from hicmae.config import InputSpec
from hicmae.heads import Targets
from hicmae.inference.items import media_item
from hicmae.inference.predictor import Predictor
from hicmae.inference.results import FilePrediction, WindowPrediction
from hicmae.serve import panels
from hicmae.serve.server import serving
from hicmae.serve.watch import Failed, SoFar, Stopped, Watch
from tests.media_files import make_clip
from tests.tiny_model import TINY, shake

EMOTIONS = ("angry", "happy", "neutral")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported recogniser, a video of 3.2 s with a space in its name, and a file that is none."""
    place = tmp_path_factory.mktemp("serve")
    torch.manual_seed(3)
    model = hicmae.EmotionRecognizer(hicmae.Backbone(TINY), Targets(classes=EMOTIONS, dimensions=("valence",)))
    shake(model)
    save_export(place / "micro", model, spec=InputSpec.for_model(TINY), provenance={})
    make_clip(place / "a talk.mp4", seconds=3.2, size=(64, 48), rate=8000)
    (place / "broken.mp4").write_bytes(b"this is no video\n" * 50)
    return place


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return Predictor.load(folder / "micro", device="cpu", batch_size=2)


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def chromium() -> str:
    found = os.environ.get("HICMAE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium on PATH, and HICMAE_CHROMIUM does not name one")
    pytest.importorskip("playwright", reason="playwright drives the browser")
    pytest.importorskip("gradio", reason="the page needs the extra demo")
    return found


class Site:
    """A served page, a browser, and every request that either of them made."""

    def __init__(self, address: str, browser: Any, contacted: list[Any]) -> None:
        self.address = address
        self._browser = browser
        self.contacted = contacted
        """Addresses that this process, the server, opened connections to."""
        self.requested: list[str] = []
        """What the browser asked for."""

    def visit(self) -> Any:
        page = self._browser.new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: self.requested.append(request.url))
        page.goto(self.address)
        page.wait_for_selector("#player input[type=file]", state="attached")
        return page


@pytest.fixture(scope="module")
def site(chromium: str, predictor: Predictor) -> Iterator[Site]:
    from playwright.sync_api import sync_playwright

    contacted: list[Any] = []
    connect = socket.socket.connect

    def watched(self: socket.socket, address: Any) -> None:
        contacted.append(address)
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", watched)
        with serving(predictor, settings={"calibrated": False}, port=0) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            yield Site(address, browser, contacted)
            browser.close()


def laid_down() -> list[Path]:
    return [path for path in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*.mp4") if path.is_file()]


def await_none_laid_down() -> None:
    """The server hears of a page that was closed after a while."""
    deadline = time.monotonic() + 20
    while laid_down() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not laid_down()


def test_a_dropped_file_is_answered_as_the_predictor_answers_and_deleted_afterwards(site, folder, predictor):
    expected = predictor.predict(folder / "a talk.mp4")
    page = site.visit()
    page.set_input_files("#player input[type=file]", folder / "a talk.mp4")
    page.wait_for_selector("#label")
    assert page.inner_text("#label") == expected.label
    assert f"valence {expected.values[0]:+.2f}" in page.inner_text("#status")
    assert f"mean of {len(expected.windows)} windows" in page.inner_text("#status")
    warnings = page.locator("#details .warning").all_inner_texts()
    assert len(warnings) == len(expected.warnings) >= 1
    assert warnings[0].startswith("not a face crop: its picture is 64 x 48")
    with page.expect_download() as download:
        page.click("text=.csv")
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
    assert download.value.suggested_filename.endswith("talk.csv")
    np.testing.assert_allclose(
        [float(row["probability_happy"]) for row in rows], [w.probabilities[1] for w in expected.windows], rtol=1e-6
    )

    # The timeline and the player go together: a click a quarter into the axis seeks, and the marker follows.
    line = page.locator(".timeline")
    box, at = line.bounding_box(), {k: float(line.get_attribute(f"data-{k}")) for k in ("left", "right", "end")}
    x = box["x"] + box["width"] * (at["left"] + 0.25 * (at["right"] - at["left"]))
    page.mouse.click(x, box["y"] + box["height"] / 2)
    page.wait_for_function("document.querySelector('.timeline .now').style.display == 'block'")
    assert page.evaluate("document.querySelector('#player video').currentTime") == pytest.approx(0.8, abs=0.05)
    marker = page.locator(".timeline .now").bounding_box()
    assert marker["x"] == pytest.approx(x, abs=0.02 * box["width"])

    assert len(laid_down()) == 1
    page.click("[aria-label=Clear]")
    page.wait_for_selector("#status .hint")
    assert not page.locator(".timeline, #details .warning").count()
    assert not laid_down()
    page.close()


def test_a_corrupt_file_gets_a_sentence(site, folder):
    page = site.visit()
    page.set_input_files("#player input[type=file]", folder / "broken.mp4")
    message = page.locator("#status .problem").inner_text()
    assert "could not be worked on" in message
    assert "broken.mp4" in message
    assert os.environ["GRADIO_TEMP_DIR"] not in message
    assert "Traceback" not in page.content()
    assert not page.locator("#stop").is_visible()
    assert len(laid_down()) == 1
    page.close()
    await_none_laid_down()


class Held:
    """Files wait at their first window until somebody lets go, which a stop does too if ``by_stop``."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.by_stop = True


@pytest.fixture
def held(predictor, monkeypatch) -> Held:
    predict, halt, hold = predictor.predict, Watch.stop, Held()

    def waiting(source, on_window):
        def wait(window, done, total):
            on_window(window, done, total)
            assert hold.let_go.wait(30), "nobody let go"

        return predict(source, wait)

    def stop(watch):
        halt(watch)
        if hold.by_stop:
            hold.let_go.set()

    monkeypatch.setattr(predictor, "predict", waiting)
    monkeypatch.setattr(Watch, "stop", stop)
    return hold


def test_windows_appear_as_they_come_and_the_button_stops_the_rest(site, folder, held):
    page = site.visit()
    page.set_input_files("#player input[type=file]", folder / "a talk.mp4")
    page.wait_for_selector(".timeline")
    assert page.inner_text("#status").startswith("window 1 of 5")
    page.click("#stop")
    assert page.locator("#status .problem").inner_text() == "Stopped after window 2 of 5."
    page.close()
    await_none_laid_down()  # or its end would stop what the next test works on


def test_another_file_takes_the_place_of_one_that_is_worked_on_and_others_wait(site, folder, held):
    shutil.copy(folder / "a talk.mp4", folder / "another.mp4")
    held.by_stop = False
    page, other = site.visit(), site.visit()
    page.set_input_files("#player input[type=file]", folder / "a talk.mp4")
    page.wait_for_selector(".timeline")
    other.set_input_files("#player input[type=file]", folder / "broken.mp4")
    other.wait_for_selector("#status >> text=waiting for its turn")
    assert sorted(path.name for path in laid_down()) == ["a talk.mp4", "broken.mp4"]
    other.click("#stop")
    assert other.locator("#status .problem").inner_text() == "Stopped before the first window."
    other.close()
    page.evaluate("""new MutationObserver(() => { window.stopped ||= !!document.querySelector("#status .problem") })
        .observe(document.body, {subtree: true, childList: true})""")
    page.click("[aria-label=Clear]")
    page.set_input_files("#player input[type=file]", folder / "another.mp4")
    page.wait_for_selector("#status >> text=waiting for its turn")
    held.let_go.set()
    page.wait_for_selector("#label")
    assert not page.evaluate("window.stopped"), "the end of the file before is none of this one"
    assert page.locator("text=another.csv").count()
    page.close()
    await_none_laid_down()


def test_other_sites_are_turned_away(site):
    host = site.address.removeprefix("http://").rstrip("/")
    for headers, code in (
        ({}, 200),
        ({"Origin": f"http://{host}"}, 200),
        ({"X-Forwarded-Host": "lab.example", "Origin": "https://lab.example"}, 200),
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "elsewhere.example", "Origin": "http://elsewhere.example"}, 403),
    ):
        assert httpx.get(site.address, headers=headers).status_code == code, headers
    url = f"{site.address}gradio_api/upload"
    answer = httpx.post(url, files={"files": b"x"}, headers={"Origin": "http://elsewhere.example"})
    assert answer.status_code == 403


def test_the_page_talks_to_its_own_server_alone(site):
    policy = site.visit().request.get(site.address).headers["content-security-policy"]
    assert "default-src 'self'" in policy
    own = (site.address, site.address.replace("127.0.0.1", "localhost"), "data:", "blob:")
    assert len(site.requested) > 10
    assert [url for url in site.requested if not url.startswith(own)] == []
    hosts = {address[0] for address in site.contacted if isinstance(address, tuple)}
    assert hosts <= {"127.0.0.1", "::1", "localhost"}


def test_a_file_that_two_pages_brought_is_deleted_with_the_second_and_nothing_outside_the_folder(chromium, tmp_path):
    from hicmae.serve.page import Visits

    visits, watch = Visits(tmp_path / "uploads"), Watch(None, None)  # type: ignore[arg-type]
    shared, outside = tmp_path / "uploads" / "hash" / "a.mp4", tmp_path / "mine" / "b.mp4"
    for path in (shared, outside):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    visits.begin("one", shared, watch)
    visits.begin("two", shared, watch)
    visits.begin("three", outside, watch)
    visits.end("one")
    assert shared.exists()
    visits.begin("two", shared, watch)  # the same file once more
    assert shared.exists()
    visits.end("two")
    visits.end("three")
    assert not shared.exists()
    assert outside.exists()


# ---------------------------------------------------------------- without a browser


def test_watching_shows_windows_as_they_come_and_ends_with_the_prediction(folder, predictor):
    states = list(Watch(predictor, media_item(folder / "a talk.mp4")))
    *before, last = states
    assert all(isinstance(state, SoFar) for state in before)
    assert [state.done for state in before] == sorted(state.done for state in before)
    assert isinstance(last, FilePrediction)
    assert last.label == predictor.predict(folder / "a talk.mp4").label


def test_a_stop_ends_the_work_at_the_next_window(folder):
    slow = Predictor.load(folder / "micro", device="cpu", hop_s=0.02, batch_size=1)
    watch = Watch(slow, media_item(folder / "a talk.mp4"))
    for state in watch:
        if isinstance(state, SoFar) and state.windows:
            watch.stop()
    assert isinstance(state, Stopped)
    assert 0 < state.done < state.total
    assert "Stopped after window" in panels.failure(state)
    assert "prediction" not in [thread.name for thread in threading.enumerate()]


def test_an_iteration_that_is_broken_off_leaves_no_thread(folder):
    slow = Predictor.load(folder / "micro", device="cpu", hop_s=0.02, batch_size=1)
    states = iter(Watch(slow, media_item(folder / "a talk.mp4")))
    next(states)
    states.close()
    assert "prediction" not in [thread.name for thread in threading.enumerate()]


def test_faults_of_the_program_are_told_apart_from_those_of_the_file(folder, predictor, monkeypatch, caplog):
    *_, last = Watch(predictor, media_item(folder / "broken.mp4"))
    assert isinstance(last, Failed)
    assert "broken.mp4" in last.message
    monkeypatch.setattr(predictor, "predict", lambda *_: 1 / 0)
    *_, last = Watch(predictor, media_item(folder / "a talk.mp4"))
    assert isinstance(last, Failed)
    assert "the terminal of the server says more" in last.message
    assert "ZeroDivisionError" in caplog.text


def test_what_comes_from_files_is_escaped_and_the_table_is_whole():
    window = WindowPrediction(
        start_s=0.0, end_s=1.0, modalities=("video",), probabilities=np.array([0.25, 0.75], np.float32), values=None
    )
    bad = "<script>alert(1)</script>"
    prediction = FilePrediction(
        name=f"{bad}.mp4", duration_s=1.0, targets=Targets(classes=("a", bad)), windows=(window,),
        warnings=(f"odd: {bad}", bad), model=bad,
    )  # fmt: skip
    html = panels.verdict(prediction) + panels.details(prediction, {"calibrated": False}) + panels.timeline(prediction)
    html += panels.failure(Failed(message=bad))
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 5
    assert "one window" in html
    data = html.split("data:application/json;base64,")[1].split('"')[0]
    import base64

    document = json.loads(base64.b64decode(data))
    assert (document["schema"], document["calibrated"]) == (1, False)
    assert document["files"][0]["label"] == bad


# ---------------------------------------------------------------- what does not start


def serve(*words: str | Path) -> int:
    return main(["serve", *map(str, words)])


def test_a_port_that_is_taken_is_named(folder, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert serve("--model", folder / "micro", "--port", port) == 2
    assert f"cannot listen at 127.0.0.1:{port}" in capsys.readouterr().err


def test_a_missing_extra_is_named_and_strangers_are_warned_of(folder, monkeypatch, capsys, caplog):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert serve("--model", folder / "micro", "--port", 0, "--host", "0.0.0.0") == 2
    assert "gradio is not installed: the page needs the extra demo" in capsys.readouterr().err
    assert "whoever reaches this computer can use the page" in caplog.text
    caplog.clear()
    assert serve("--model", folder / "micro", "--port", 0) == 2
    assert "whoever reaches" not in caplog.text


def test_models_that_cannot_be_served_are_refused(folder, tmp_path, capsys):
    save_export(tmp_path / "backbone", hicmae.Backbone(TINY), spec=InputSpec.for_model(TINY), provenance={})
    assert serve("--model", tmp_path / "backbone") == 2
    assert "backbone without a head" in capsys.readouterr().err
    shutil.copytree(folder / "micro", tmp_path / "altered")
    with (tmp_path / "altered" / "model.safetensors").open("ab") as file:
        file.write(b"x")
    assert serve("--model", tmp_path / "altered") == 2
    assert "altered" in capsys.readouterr().err
    assert serve("--model", tmp_path / "absent") == 2
    assert "no exported folder" in capsys.readouterr().err
    assert serve("--model", folder / "micro", "--max-mb", 0) == 2
    assert "must be at least 1" in capsys.readouterr().err
