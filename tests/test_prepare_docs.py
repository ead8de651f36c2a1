"""The page about preparing corpora shows the layouts that the cards have. ``python -m tests.test_prepare_docs`` writes
them."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from hicmae.benchmarks import CARDS, card
from hicmae.cli.prepare import add_arguments

PAGE = Path(__file__).parent.parent / "docs" / "prepare.md"
_BETWEEN = re.compile(r"(<!-- from the cards.*?-->\n).*(<!-- end -->)", re.DOTALL)


def layouts() -> str:
    """The section about the benchmarks; cards of one layout are shown together."""
    groups: dict[str, list[str]] = {}
    for name in CARDS:
        groups.setdefault(card(name).layout, []).append(name)
    parts = []
    for layout, names in groups.items():
        cards = [card(name) for name in names]
        title = ", ".join(f"{known.title} (`{known.name}`)" for known in cards)
        counts = "; ".join(
            f"`{known.name}`: {known.expected.clips} clips"
            for known in cards
            if known.expected and known.expected.clips
        )
        folds = f"{cards[0].folds} folds" if cards[0].folds else "One fixed division"
        text = f"### {title}\n\n```text\n{layout}\n```\n\n{folds}: {cards[0].fold_rule}."
        parts.append(text + (f" Expected, {counts}." if counts else ""))
    return "\n" + "\n\n".join(parts) + "\n\n"


def with_layouts(page: str) -> str:
    """The page with that section as the cards have it."""
    return _BETWEEN.sub(lambda match: match[1] + layouts() + match[2], page)


def test_layouts_are_those_of_the_cards() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in CARDS)
    assert with_layouts(page) == page, "run python -m tests.test_prepare_docs"


def test_options_are_those_of_the_command() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    known = {option for action in parser._actions for option in action.option_strings}
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("python -m finetune"))  # has options of its own
    named = set(re.findall(r"(?<!-)--[a-z][a-z-]+", text))
    assert named <= known
    assert {"--strict", "--folds", "--faces", "--no-shards", "--root", "--out", "--list", "--card"} <= named


if __name__ == "__main__":
    PAGE.write_text(with_layouts(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
