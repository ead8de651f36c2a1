"""The nine benchmarks: one card a corpus, looked up by name.

>>> from hicmae.benchmarks import card
>>> card("crema_d").labels.classes["emotion"]
('angry', 'disgust', 'fearful', 'happy', 'neutral', 'sad')

An emotion has one word on all cards (angry, calm, disgust, fearful, happy, neutral, sad, surprised, worried), whatever
a corpus's code or number for it; so clips of two corpora can be put into one manifest. MAFW alone keeps the nouns of
its lists, of which its compound labels are made. The levels of AVCAffe are the corpus's own.
"""

from __future__ import annotations

import difflib
import importlib

from hicmae.benchmarks.card import Card

# name -> module below this package that defines the card, as its constant named here
_CARDS: dict[str, tuple[str, str]] = {
    "crema_d": ("crema_d", "CARD"),
    "crema_d_4": ("crema_d", "CARD_4"),
    "ravdess": ("ravdess", "CARD"),
    "msp_improv": ("msp_improv", "CARD"),
    "iemocap": ("iemocap", "CARD"),
    "mafw": ("mafw", "MAFW"),
    "mafw_compound": ("mafw", "MAFW_COMPOUND"),
    "dfew": ("dfew", "DFEW"),
    "mer2023": ("mer2023", "MER2023"),
    "avcaffe": ("avcaffe", "AVCAFFE"),
    "werewolf_xl": ("werewolf_xl", "WEREWOLF_XL"),
}

CARDS: tuple[str, ...] = tuple(_CARDS)
"""Names of all cards."""


def card(name: str) -> Card:
    """The card of a corpus; an unknown name raises ``ValueError`` with those there are."""
    if name not in _CARDS:
        near = difflib.get_close_matches(name, _CARDS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no benchmark is called {name!r}{hint} Known: {', '.join(_CARDS)}")
    module, constant = _CARDS[name]
    found: Card = getattr(importlib.import_module(f"hicmae.benchmarks.{module}"), constant)
    return found
