"""Pictures of a page for docs: ``python scripts/screenshot.py PAGE.html OUT.png [--width 1180] [--dark] ...``."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright


def main() -> int:
    """Take the picture; returns 0, or 1 if the page asks for anything from elsewhere or is wider than its window."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("out", type=Path, help=".png or .webp")
    parser.add_argument("--width", type=int, default=1180, help="of the window, in pixels")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--paper", action="store_true", help="as printed")
    parser.add_argument("--sections", nargs="*", help="these alone, by the names in their addresses")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of the picture's size")
    parser.add_argument("--browser", default="/usr/bin/chromium", help="a Chromium that is installed")
    args = parser.parse_args()
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.browser, args=["--no-sandbox"])
        scheme = "dark" if args.dark else "light"
        context = browser.new_context(viewport={"width": args.width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: asked.append(f"script: {error}"))
        page.goto(args.page.resolve().as_uri())
        if args.paper:
            page.emulate_media(media="print")
        if args.sections is not None:
            for section in page.query_selector_all("section"):
                if section.get_attribute("id") not in args.sections:
                    section.evaluate("node => node.remove()")
        page.wait_for_timeout(500)
        wide = page.evaluate("document.documentElement.scrollWidth")
        shot = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
        browser.close()
    small = shot.resize([round(side * args.scale) for side in shot.size], Image.Resampling.LANCZOS)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if args.out.suffix == ".png":
        small.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(args.out, optimize=True)
    else:
        small.save(args.out)
    from_elsewhere = [url for url in asked if not url.startswith(("file:", "data:"))]
    if from_elsewhere or wide > args.width:
        sys.stderr.write(f"the page is {wide} pixels wide and asked for {from_elsewhere}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
