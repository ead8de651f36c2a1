"""What could not be used: counted, named, and not too much of it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from hicmae.data.batch import Skip

logger = logging.getLogger(__name__)

_REPORTED_AT_START = "shard_truncated"
_FRACTION_OVER = 1000


class UnusableDataError(RuntimeError):
    """More clips cannot be used than a job may leave out."""


class SkipCounter:
    """Counts skipped clips by reason, names them in the log, and stops the job where there are too many.

    The limit is a share of the clips seen, taken over at least ``min(1000, clips)`` clips, so that one bad clip in
    the first batch does not stop a job. Clips of a shard known to be cut off are counted and not held against it:
    the shard was reported at the start.
    """

    def __init__(self, max_fraction: float, clips: int, name: str) -> None:
        self.reasons: Counter[str] = Counter()
        self.names: dict[str, str] = {}
        self._max_fraction = max_fraction
        self._over = min(_FRACTION_OVER, clips)
        self._name = name
        self._seen = 0

    def add(self, size: int, skipped: Sequence[Skip]) -> None:
        """Count a batch of ``size`` clips; ``UnusableDataError`` with the counts beyond the limit."""
        self._seen += size
        for skip in skipped:
            self.reasons[skip.reason] += 1
            if skip.clip_id not in self.names and skip.reason != _REPORTED_AT_START:
                logger.warning("skipped clip %s: %s", skip.clip_id, skip.detail)
            self.names[skip.clip_id] = skip.reason
        count = sum(number for reason, number in self.reasons.items() if reason != _REPORTED_AT_START)
        if count > self._max_fraction * max(self._seen, self._over):
            reasons = ", ".join(f"{reason}: {number}" for reason, number in self.reasons.most_common())
            raise UnusableDataError(
                f"{self._name}: {count} of {self._seen} clips were skipped ({reasons}), more than "
                f"max_skip_fraction={self._max_fraction:g} allows; the log names them. Repair or drop them "
                "('hicmae shards verify' finds them), or raise max_skip_fraction"
            )
