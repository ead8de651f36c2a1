"""Where an exported folder is written: it takes the place of an older export, and of nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CONFIG, CARD = "config.json", "README.md"


def refuse_foreign(directory: Path, format: str = "safetensors") -> None:
    """Raise ``ValueError`` where ``directory`` holds something else than an export of this format.

    Many tools write a ``config.json``: it counts as an export's by what it says.
    """
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    held = _settings(directory)
    if held is None:
        raise ValueError(f"{directory} exists and is no exported folder; choose another or remove it")
    if (other := held.get("format", "safetensors")) != format:
        raise ValueError(f"{directory} exists and is an export as {other}; choose another folder or remove it")


@contextmanager
def replacing(directory: Path, format: str = "safetensors") -> Iterator[Path]:
    """A new folder to write files into, on the same file system; it becomes ``directory`` when the block ends.

    An older export of that format is gone then; files beside it that are not of the export stay (notes, ``.git``).
    After an error everything is as it was. Drafts of killed processes are removed by the next export to that place.

    Raises:
        ValueError: as ``refuse_foreign``.
    """
    from hicmae.data.passing_folder import passing_folder  # systems without its locks can load exports all the same

    refuse_foreign(directory, format)
    place = directory.resolve()  # where it is a link, what it points to is replaced
    place.parent.mkdir(parents=True, exist_ok=True)
    with passing_folder(place.parent, f".{place.name}-", stays_with="old") as folder:
        draft, old = folder / place.name, folder / "old" / place.name
        draft.mkdir()
        yield draft
        if not place.exists():
            draft.rename(place)
            return
        replaced = {CONFIG, CARD, *(_settings(place) or {}).get("sha256", {})}
        replaced |= {path.name for path in draft.iterdir()}
        others = [path.name for path in place.iterdir() if path.name not in replaced]
        old.parent.mkdir()
        place.rename(old)
        draft.rename(place)
        for other in others:
            (old / other).rename(place / other)


def _settings(directory: Path) -> Mapping[str, Any] | None:
    """What ``config.json`` says, if that of an export."""
    try:
        settings = json.loads((directory / CONFIG).read_bytes())
    except (OSError, ValueError):
        return None
    is_one = isinstance(settings, Mapping) and {"schema", "hicmae", "kind", "sha256"} <= set(settings)
    return settings if is_one and isinstance(settings["sha256"], Mapping) else None
