"""A section of the page, and what happens where it cannot be made: it says why, and the others go on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from hicmae.report.material import Material
from hicmae.report.run import NotAvailableError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A section by name, and the function that makes its content."""

    name: str
    """For the address within the page: lower case, no blanks."""
    title: str
    make: Callable[[Material], Markup]
    """Raises ``NotAvailableError`` with the reason where the run does not have what it needs."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A finished section."""

    name: str
    title: str
    html: Markup
    failed: bool = False


def make_section(part: Part, material: Material) -> Section:
    """Make a section; a reason or an error becomes its content, and is logged."""
    try:
        return Section(name=part.name, title=part.title, html=part.make(material))
    except NotAvailableError as reason:
        logger.warning("section '%s' is left out: %s", part.title, reason)
        note = Markup('<p class="absent">Not here: {}.</p>').format(str(reason).rstrip("."))
        return Section(name=part.name, title=part.title, html=note, failed=True)
    except Exception as error:  # whatever one section runs into, the others are wanted
        logger.warning("section '%s' failed", part.title, exc_info=error)
        note = Markup('<p class="absent failed">This section could not be made: {}: {}</p>').format(
            type(error).__name__, str(error)
        )
        return Section(name=part.name, title=part.title, html=note, failed=True)
