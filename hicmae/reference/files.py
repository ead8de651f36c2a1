"""Reading a checkpoint file of the authors' code: its weights by clean names, and what else it says."""

from __future__ import annotations

import logging
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hicmae.reference.strangers import recognize, recognize_entries
from hicmae.weights_file import read_weights

logger = logging.getLogger(__name__)

_WRAPPED_IN = ("model", "module", "state_dict")
# What wrappers put before names: data parallelism, torch.compile, a module that holds the model.
_PREFIX = re.compile(r"^(?:(?:module|model|_orig_mod|backbone|encoder(?=\.encoder(?:_audio|_fusion)?\.))\.)+")


@dataclass(frozen=True, kw_only=True)
class ReferenceFile:
    """What a checkpoint file holds."""

    path: Path
    state: dict[str, Tensor]
    """The weights, by the reference's names without wrappers around them."""
    original_names: dict[str, str]
    """Name in ``state`` -> name in the file."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Entry of the file that is no weight -> what it is."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Plain values of the file's ``argparse.Namespace``: the settings of the run that wrote it."""


def read_file(path: str | Path) -> ReferenceFile:
    """Read a reference checkpoint (``.pth`` or ``.safetensors``); nothing in it is executed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint, one without a state dict, or one of another project.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    found: Any = read_weights(path) if path.suffix == ".safetensors" else _load_pickle(path)
    left_out: dict[str, str] = {}
    settings: dict[str, Any] = {}
    if isinstance(found, Mapping):
        recognize_entries(found, path)
        for key in _WRAPPED_IN:
            if isinstance(found.get(key), Mapping):
                left_out = {str(k): _describe(v) for k, v in found.items() if k != key}
                settings = next((vars(v) for v in found.values() if isinstance(v, _Settings)), {})
                found = found[key]
                break
    if not isinstance(found, Mapping) or not any(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path} holds no state dict: expected tensors by name, at the top or under 'model'")
    state: dict[str, Tensor] = {}
    original_names: dict[str, str] = {}
    for name, value in found.items():
        if not isinstance(value, Tensor):
            left_out[str(name)] = _describe(value)
            continue
        clean = _PREFIX.sub("", str(name))
        if clean in state:
            raise ValueError(
                f"{path} holds {clean!r} twice, as {original_names[clean]!r} and as {name!r}; it is not clear which "
                "of them is the model: save one of them alone"
            )
        state[clean], original_names[clean] = value, str(name)
    recognize(state, path)
    return ReferenceFile(path=path, state=state, original_names=original_names, left_out=left_out, settings=settings)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a reference checkpoint, without wrappers around its names; raises as ``read_file``."""
    return read_file(path).state


def _describe(value: Any) -> str:
    if isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, _Settings):
        return "settings of the run"
    if isinstance(value, Mapping):
        return f"mapping of {len(value)} entries"
    return "object that was not loaded" if isinstance(value, _Placeholder) else type(value).__name__


# ---------------------------------------------------------------- without running code


class _Placeholder:
    """Stands for an object of the pickle that is not a tensor; keeps nothing and runs nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Placeholder:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


class _Settings(_Placeholder):
    """Stands for an ``argparse.Namespace``: keeps its numbers, strings and lists of them, and nothing else."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            vars(self).update({name: value for name, value in state.items() if type(name) is str and _is_plain(value)})


def _is_plain(value: Any) -> bool:
    return all(map(_is_plain, value)) if type(value) in (list, tuple) else type(value) in (bool, int, float, str)


def _load_pickle(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is no torch checkpoint (no zip archive: cut short, or written by torch before 1.6); "
            "copy it again or save it with a newer torch"
        )
    foreign: list[str] = []
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        if foreign:
            logger.info("%s: replaced by placeholders, not loaded: %s", path.name, ", ".join(foreign))
        stand_ins: list[Any] = [(_Settings if name == "argparse.Namespace" else _Placeholder, name) for name in foreign]
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} would have to run code to be read, or is damaged ({', '.join(foreign) or 'no foreign objects'}); "
            "it was not read. Save its state dict alone as .safetensors where you trust it"
        ) from error
    except Exception as error:  # torch names a dozen kinds of damage by as many exceptions
        raise ValueError(f"{path} is no torch checkpoint, or is damaged ({error!r}); copy it again") from error
