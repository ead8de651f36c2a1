"""The page: its sections one after another, in one file without any reference to another."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from hicmae import __version__
from hicmae.report.classes import make_classes
from hicmae.report.configuration import make_configuration, make_environment
from hicmae.report.curves import make_curves
from hicmae.report.data_section import make_data
from hicmae.report.dimensions import make_dimensions
from hicmae.report.feature_map import make_feature_map
from hicmae.report.markup import joined
from hicmae.report.material import Material
from hicmae.report.mistakes import make_mistakes
from hicmae.report.overview import make_overview
from hicmae.report.probes import make_probes, was_probed
from hicmae.report.reconstructions import make_reconstructions
from hicmae.report.retrieval import make_retrieval
from hicmae.report.scores import make_losses, make_scores
from hicmae.report.section import Part, Section, make_section
from hicmae.report.speakers import make_speakers
from hicmae.report.style import SCRIPT, STYLE

logger = logging.getLogger(__name__)

_OVERVIEW = Part(name="overview", title="Overview", make=make_overview)
_SCORES = Part(name="scores", title="Scores", make=make_scores)
_CURVES = Part(name="curves", title="Curves", make=make_curves)
_PREDICTED = (
    Part(name="classes", title="Classes", make=make_classes),
    Part(name="dimensions", title="Continuous targets", make=make_dimensions),
    Part(name="speakers", title="Speakers", make=make_speakers),
    Part(name="mistakes", title="Most confident mistakes", make=make_mistakes),
)
_FEATURES = (
    Part(name="features", title="Features by layer", make=make_feature_map),
    Part(name="retrieval", title="Retrieval between picture and sound", make=make_retrieval),
)
_ENDING = (
    Part(name="data", title="Data", make=make_data),
    Part(name="configuration", title="Configuration", make=make_configuration),
    Part(name="environment", title="Environment", make=make_environment),
)
PARTS: dict[str, tuple[Part, ...]] = {
    "pretrain": (
        _OVERVIEW,
        Part(name="losses", title="Losses", make=make_losses),
        _CURVES,
        Part(name="probes", title="Probes", make=make_probes),
        Part(name="reconstructions", title="Reconstructions", make=make_reconstructions),
        *_FEATURES,
        *_ENDING,
    ),
    "finetune": (_OVERVIEW, _SCORES, *_PREDICTED, _CURVES, *_FEATURES, *_ENDING),
    "folds": (_OVERVIEW, _SCORES, *_PREDICTED, *_ENDING[:2]),
}
"""Sections of each kind of run, in order."""
_TITLES = {"pretrain": "Pre-training", "finetune": "Fine-tuning", "folds": "Cross-validation"}

_PAGE = Markup(
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    "<title>{title}</title>\n<style>{style}</style></head>\n<body>\n<header><small>HiCMAE {job}</small><h1>{name}</h1>"
    "<nav>{nav}</nav></header>\n<main>\n{sections}\n</main>\n"
    "<footer>Written by hicmae report, version {version}.</footer>\n<script>{script}</script>\n</body></html>\n"
)


def make_sections(material: Material) -> list[Section]:
    """Every section of this kind of run that applies to it."""
    return [make_section(part, material) for part in PARTS[material.run.kind] if _applies(part, material)]


def render(material: Material, sections: Sequence[Section]) -> str:
    """The page's HTML; the same run gives the same text."""
    name, job = material.run.root.resolve().name, _TITLES[material.run.kind]
    links = (
        Markup('<a href="#{}"{}>{}</a>').format(one.name, Markup(' class="missing"') if one.failed else "", one.title)
        for one in sections
    )
    made = (
        Markup('<section id="{}"><h2>{}</h2>\n{}</section>').format(one.name, one.title, one.html) for one in sections
    )
    return str(
        _PAGE.format(
            title=f"{name}: HiCMAE {job.lower()}",
            style=Markup(STYLE),
            script=Markup(SCRIPT),
            job=job.lower(),
            name=name,
            nav=joined(links, "\n"),
            sections=joined(made, "\n"),
            version=__version__,
        )
    )


def write_page(material: Material, path: Path) -> list[Section]:
    """Write the page, by way of a temporary name; returns its sections."""
    sections = make_sections(material)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(render(material, sections), encoding="utf-8")
    draft.replace(path)
    logger.info("wrote %s, %.2f MB", path, path.stat().st_size / 1e6)
    return sections


def _applies(part: Part, material: Material) -> bool:
    """A run without probes, classes or dimensions has no section of them; without scores, the latter two say so."""
    run = material.run
    if part.name == "probes":
        return was_probed(run)
    labels = run.model.get("labels") if run.model else None
    if not labels or part.name not in ("classes", "dimensions"):
        return True
    return bool(labels.get(part.name))
