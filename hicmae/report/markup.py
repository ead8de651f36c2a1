"""Pieces of HTML. Whatever comes from files goes through ``Markup.format``, which escapes it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

from markupsafe import Markup

Cell = str | int | Markup


def joined(parts: Iterable[str | Markup], between: str = "") -> Markup:
    """Pieces one after another; plain text among them is escaped."""
    return Markup(between).join(parts)


def paragraph(text: str | Markup, kind: str = "") -> Markup:
    """A paragraph; ``kind`` is a class of the page's style."""
    return Markup('<p class="{}">{}</p>').format(kind, text) if kind else Markup("<p>{}</p>").format(text)


def table(header: Sequence[Cell], rows: Iterable[Sequence[Cell]], *, text_columns: int = 1) -> Markup:
    """A table that scrolls sideways where it is too wide.

    Args:
        header: titles of columns.
        rows: cells.
        text_columns: so many columns, from the left, hold text; the others hold numbers, set flush right.
    """

    def row(cells: Sequence[Cell], tag: str) -> Markup:
        made = (
            Markup("<{0}{1}>{2}</{0}>").format(tag, Markup("" if place < text_columns else ' class="n"'), cell)
            for place, cell in enumerate(cells)
        )
        return Markup("<tr>{}</tr>").format(joined(made))

    head = Markup("<thead>{}</thead>").format(row(header, "th"))
    body = Markup("<tbody>{}</tbody>").format(joined(row(cells, "td") for cells in rows))
    return Markup('<div class="wide"><table>{}{}</table></div>').format(head, body)


def facts(pairs: Iterable[tuple[str, Cell]]) -> Markup:
    """Names and values, two columns."""
    lines = (Markup("<dt>{}</dt><dd>{}</dd>").format(name, value) for name, value in pairs)
    return Markup('<dl class="facts">{}</dl>').format(joined(lines))


def picture(data: bytes, kind: str, *, alt: str, style: str = "") -> Markup:
    """An image within the page.

    Args:
        data: the file's bytes.
        kind: its MIME type, e.g. image/webp.
        alt: what it shows, in words.
        style: a class of the page's style.
    """
    uri = f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return Markup('<img class="{}" src="{}" alt="{}">').format(style, uri, alt)


def folded(summary: str | Markup, content: Markup) -> Markup:
    """Content behind a line that opens it."""
    return Markup("<details><summary>{}</summary>{}</details>").format(summary, content)


def colour_of(group: int) -> str:
    """The class of the page's style for a group; beyond those that it tells apart, one grey for all."""
    return f"k{group}" if group < COLOURS else "others"


def legend(names: Sequence[str]) -> Markup:
    """Names with their colours; those beyond the colours there are share one line."""
    shown = [*names[:COLOURS], *([f"{len(names) - COLOURS} others"] if len(names) > COLOURS else [])]
    marks = (Markup('<span><i class="{}"></i>{}</span>').format(colour_of(i), name) for i, name in enumerate(shown))
    return Markup('<p class="legend">{}</p>').format(joined(marks))


COLOURS = 10
"""Colours that the page's style tells apart."""
