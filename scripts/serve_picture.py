"""A picture of the page of ``hicmae serve``: one synthetic speaker, one emotion after the other, in a real browser.

After ``make demo``:

    .venv/bin/python scripts/serve_picture.py --model demo/exported --out docs/images/serve.png
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from hicmae.data.synthetic import CorpusSettings, plan_clips
from hicmae.data.synthetic.corpus import render_clip, write_mp4
from hicmae.inference.predictor import Predictor
from hicmae.serve.server import serving


def write_video(path: Path) -> None:
    """A speaker whom the demo's model has not met, in all eight emotions, 24 seconds."""
    settings = CorpusSettings(speakers=24, clips_per_speaker=8, seed=7, size=192, min_seconds=3.0, max_seconds=3.0)
    plans = [plan for plan in plan_clips(settings) if plan.speaker_id == "s0003"]
    frames, sounds = zip(*(render_clip(plan, settings) for plan in plans), strict=True)
    write_mp4(path, np.concatenate(frames), np.concatenate(sounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="exported folder of a recogniser")
    parser.add_argument("--out", required=True, help="PNG to write")
    parser.add_argument("--hop-s", type=float, default=0.64, help="seconds from one window to the next")
    parser.add_argument("--chromium", default=os.environ.get("HICMAE_CHROMIUM") or shutil.which("chromium"))
    args = parser.parse_args()
    predictor = Predictor.load(args.model, hop_s=args.hop_s, batch_size=2)
    page_at = serving(predictor, settings={}, port=0)
    with tempfile.TemporaryDirectory() as folder, page_at as address, sync_playwright() as driver:
        video = Path(folder, "synthetic_speaker.mp4")
        write_video(video)
        browser = driver.chromium.launch(executable_path=args.chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1320, "height": 800})
        page.goto(address)
        page.set_input_files("#player input[type=file]", video)
        page.wait_for_selector("#label", timeout=120_000)
        page.evaluate("document.querySelector('#player video').currentTime = 13")
        page.wait_for_function("document.querySelector('.timeline .now').style.display == 'block'")
        page.mouse.move(5, 5)
        page.wait_for_timeout(500)
        page.screenshot(path=args.out)
        browser.close()


if __name__ == "__main__":
    main()
