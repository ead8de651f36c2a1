"""What ``hicmae prepare`` shows of the benchmarks: a list, or one card in full."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from hicmae.benchmarks.card import Card


def list_cards(console: Console) -> None:
    """Name, title, size, folds, and how to get each benchmark."""
    from rich.padding import Padding

    from hicmae.benchmarks import CARDS, card

    for name in CARDS:
        known = card(name)
        folds = f"{known.folds} folds" if known.folds else "train and test"
        console.print(
            f"{name}: {known.title}; {_clips(known)} clips, {folds}", style="bold", markup=False, highlight=False
        )
        console.print(Padding(known.obtain, (0, 0, 0, 4)), markup=False, highlight=False)
    console.print("All about one of them: hicmae prepare NAME --card", highlight=False)


def card_text(name: str) -> str:
    """All that is known of a benchmark; an unknown name raises ``ValueError``."""
    from hicmae.benchmarks import card

    known = card(name)
    parts = [
        f"{known.name}: {known.title}",
        f"How to get it\n{_indented(known.obtain)}",
        f"Layout of --root\n{_indented(known.layout)}",
        f"Labels\n{_indented(_labels(known))}",
        f"Folds\n{_indented(_folds(known))}",
        f"Expected\n{_indented(_expected(known))}",
        f"Scores to report\n{_indented(', '.join(known.metrics))}",
        f"Published, not measured by this project\n{_indented(_published(known) or 'none known')}",
        f"Checked against public sources\n{_bullets(known.confirmed)}",
        f"Assumed, and not confirmed\n{_bullets(known.unconfirmed)}",
    ]
    return "\n\n".join(parts)


def _clips(known: Card) -> str:
    return str(known.expected.clips) if known.expected and known.expected.clips is not None else "?"


def _labels(known: Card) -> str:
    lines = [f"{column}: {', '.join(names)}" for column, names in known.labels.classes.items()]
    lines += [f"{column}: {low:g} to {high:g}" for column, (low, high) in known.labels.dimensions.items()]
    if known.average_over:
        lines.append(f"clips of one {known.average_over} share a prediction")
    return "\n".join(lines)


def _folds(known: Card) -> str:
    count = f"{known.folds} folds" if known.folds else "one fixed division"
    return f"{count}: {known.fold_rule}"


def _expected(known: Card) -> str:
    expected = known.expected
    if expected is None:
        return "no counts are known"
    lines = [f"{_clips(known)} clips" + (f", {expected.subjects} speakers" if expected.subjects else "")]
    lines += [", ".join(f"{split} {count}" for split, count in expected.splits.items())] if expected.splits else []
    lines += [
        f"{column}: {', '.join(f'{name} {count}' for name, count in names.items())}"
        for column, names in expected.classes.items()
    ]
    return "\n".join([*lines, f"({expected.source})"])


def _published(known: Card) -> str:
    return "\n".join(
        f"{result.method} ({' + '.join(result.modalities)}): "
        + ", ".join(f"{name} {score:.4f}" for name, score in result.scores.items())
        + (f", {result.column}" if result.column else "")
        + f"; {result.protocol} ({result.source})"
        for result in known.published
    )


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _bullets(texts: tuple[str, ...]) -> str:
    return "\n".join(f"  - {text}" for text in texts) or "  nothing"
