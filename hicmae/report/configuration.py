"""The run's configuration and environment."""

from __future__ import annotations

from markupsafe import Markup

from hicmae.report.markup import facts, folded
from hicmae.report.material import Material
from hicmae.report.run import NotAvailableError

_SHOWN = ("hicmae", "revision", "torch", "device", "processes", "precision")


def make_configuration(material: Material) -> Markup:
    """The text as the run kept it."""
    text = material.run.config_text
    if not text:
        raise NotAvailableError("the run kept no config.yaml")
    lines = text.count("\n") + 1
    return folded(f"{lines} lines, as the run kept them", Markup("<pre>{}</pre>").format(text))


def make_environment(material: Material) -> Markup:
    """Versions and device, as the run and its export tell them."""
    known = material.run.record | material.run.provenance
    rows = [(name, str(known[name])) for name in _SHOWN if known.get(name) not in (None, "")]
    if not rows:
        raise NotAvailableError("neither run.json nor an export says where the run took place")
    return facts(rows)
