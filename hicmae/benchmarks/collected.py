"""What a parser has found so far, and how it ends."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hicmae.benchmarks.card import Native, NativeClip
from hicmae.data.packed import Reject

NOT_A_CLIP = "film or sound without the name of a clip"
"""Of files that are left out."""


@dataclass(kw_only=True)
class Collected:
    """Clips, rejects and what the benchmark does not use, as a parser meets them."""

    clips: list[NativeClip] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, found: NativeClip | Reject) -> None:
        """Put it where it belongs."""
        if isinstance(found, NativeClip):
            self.clips.append(found)
        else:
            self.rejects.append(found)

    def reject(self, clip_id: str, reason: str, detail: str) -> None:
        """Note a clip that should be there or be usable and is not."""
        self.rejects.append(Reject(clip_id=clip_id, reason=reason, detail=detail))

    def native(self, root: Path) -> Native:
        """All of it, in the order of the ids.

        Raises:
            ValueError: not one clip can be used.
        """
        if not self.clips:
            raise ValueError(f"{root}: {self._why_nothing()}")
        return Native(
            clips=tuple(sorted(self.clips, key=lambda found: found.clip.clip_id)),
            rejects=tuple(sorted(self.rejects, key=lambda reject: (reject.clip_id, reject.detail))),
            left_out=dict(sorted(self.left_out.items())),
        )

    def _why_nothing(self) -> str:
        unused = ", ".join(f"{reason} ({count})" for reason, count in sorted(self.left_out.items()))
        if not self.rejects:
            return f"no clip of this benchmark in it; what is there is left out: {unused or 'nothing is there'}"
        first = self.rejects[0]
        return (
            f"none of {len(self.rejects)} clips can be used; the first is {first.clip_id}: {first.reason}, "
            f"{first.detail}" + (f"; left out besides: {unused}" if unused else "")
        )
