"""On which clips a run is tested, and on which its best epoch is chosen: said with every number it writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PAPER_PROTOCOL = "paper protocol: best epoch chosen on the test fold"
"""The label of every number of such a run."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What the scores of a run are scores of. Goes into its checkpoints, so that a later test knows."""

    test_fold: int | None
    """``None`` where the corpus has one fixed division."""
    paper: bool
    """The best epoch was chosen on the test clips."""
    content: str
    """Digest of the corpus: clips, speakers, splits and labels."""

    @property
    def label(self) -> str:
        """What stands beside every number; empty for a run whose test clips played no part in it."""
        return PAPER_PROTOCOL if self.paper else ""

    @property
    def validation_name(self) -> str:
        """Under what name validation scores are logged."""
        return "paper_protocol_val" if self.paper else "val"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for checkpoints and exports."""
        return {"test_fold": self.test_fold, "paper": self.paper, "content": self.content}

    def check_origin(self, origin: Mapping[str, Any], what: str) -> None:
        """Refuse weights that were trained on what is to be tested here.

        Args:
            origin: ``to_dict`` of the run that made them.
            what: names them.

        Raises:
            ValueError: the same corpus, with another test fold.
        """
        same = origin["content"] == self.content
        if same and origin["test_fold"] != self.test_fold:
            raise ValueError(
                f"{what} was trained with fold {origin['test_fold']} as its test, so fold {self.test_fold} was among "
                f"its training clips; give data.test_fold={origin['test_fold']}, or the checkpoint of that fold"
            )

    def check_start(self, origin: Mapping[str, Any], what: str) -> None:
        """Refuse a start from a backbone that has learnt from what is to be tested here, or was chosen on it.

        Args:
            origin: ``to_dict`` of the fine-tuning that made it.
            what: names it.

        Raises:
            ValueError: the same corpus, with another test fold, or under the paper's protocol where this run is not.
        """
        self.check_origin(origin, what)
        if origin["content"] == self.content and origin["paper"] and not self.paper:
            raise ValueError(
                f"{what} was chosen on the test clips ({PAPER_PROTOCOL}), so scores of what starts from it would not "
                "hold for new people; start from another one, or set data.paper_protocol=true"
            )


def labelled(text: str, label: str) -> str:
    """The text with the protocol's label, where there is one."""
    return f"{text} [{label}]" if label else text
