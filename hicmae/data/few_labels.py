"""A share of the training clips, for experiments on how many labels a model needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from hicmae.data.order import generator
from hicmae.data.source import ClipSource, SubsetSource


def share_of_clips(source: ClipSource, fraction: float, *, columns: Sequence[str], seed: int) -> ClipSource:
    """So large a share of the clips of every class, and at least one clip of each; all of them for 1.

    Each clip has a number that follows from seed and clip id alone, and of each class the clips with the lowest are
    kept. So the clips of a smaller share are among those of a larger one, and neither the order nor the storage of
    the corpus matters.

    Args:
        source: the clips to choose from.
        fraction: above 0 and at most 1.
        columns: label columns whose values are the classes; without any, all clips are chosen from together.
        seed: of the choice.

    Raises:
        ValueError: a fraction that is none.
    """
    if not 0 < fraction <= 1:
        raise ValueError(
            f"label_fraction={fraction} must be above 0 and at most 1: 0.05 keeps 5% of the training clips"
        )
    if fraction == 1:
        return source
    members: dict[tuple[str, ...], list[tuple[float, str, int]]] = defaultdict(list)
    for number in range(len(source)):
        info = source.info(number)
        place = generator("label fraction", seed, info.clip_id).random()
        members[tuple(str(info.labels.get(column)) for column in columns)].append((place, info.clip_id, number))
    kept = [
        number for clips in members.values() for _, _, number in sorted(clips)[: max(1, round(fraction * len(clips)))]
    ]
    return SubsetSource(source, kept, f"{len(kept)} of {len(source)} labels")
