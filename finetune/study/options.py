"""Settings by dotted names: read from YAML, put into one another, and compared with what a job understands."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """YAML as the jobs read it: ``1e-3`` is a number; and a key that stands twice is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"line {node.start_mark.line + 1}: {twice[0]!r} stands there twice; rename one of them")
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """A file's mapping.

    Raises:
        FileNotFoundError, ValueError: no such file, or none that can be used; names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        content = yaml.load(path.read_text(), _Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no settings, but {type(content).__name__}")
    return content


def write_yaml(settings: Mapping[str, Any]) -> str:
    """What ``read_yaml`` reads."""
    return yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True, width=110)


def with_options(settings: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested settings with some set anew, by dotted names."""
    result = copy.deepcopy(dict(settings))
    for name, value in options.items():
        *groups, last = name.split(".")
        place = result
        for group in groups:
            inner = place.get(group)
            inner = inner if isinstance(inner, dict) else {}  # null, or a value that gives way to a group
            place[group] = inner
            place = inner
        place[last] = copy.deepcopy(value)
    return result


def flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values by dotted names; an empty group is a value."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def refuse_unknown(names: Collection[Any], known: Collection[str], where: str) -> None:
    """Raise ``ValueError`` that says where an unknown name stands, and the nearest known one."""
    for name in names:
        if name not in known:
            raise ValueError(f"{where}: {name!r} is not known here{nearest(str(name), known)}")


def nearest(name: str, known: Collection[str]) -> str:
    """Words for a message: what may have been meant, or what there is."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(sorted(known))}" if len(known) <= 20 else ""
