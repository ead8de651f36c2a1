"""A checkout of the authors' code (``sunlicai/HiCMAE``), imported from where the user has it and nowhere else.

Its modules have common names (``utils``, ``mixup``) and were written for older versions of torch and timm. Both are
settled while they are imported: afterwards ``sys.path`` and ``sys.modules`` are as before, but for packages that were
installed anyway.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Self

MODULES = (
    "modeling_pretrain_av",
    "modeling_finetune_av",
    "engine_for_pretraining_av",
    "engine_for_finetuning_av",
    "optim_factory",
    "utils",
)
"""What is needed of a checkout; each is one file in its topmost folder."""


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """The authors' modules, imported."""

    path: Path
    modules: Mapping[str, ModuleType]

    @classmethod
    def at(cls, path: str | Path) -> Self:
        """Import a checkout. This runs the code in it.

        Raises:
            ValueError: files are missing, or one of them cannot be imported; the message says which and what helps.
        """
        folder = Path(path).expanduser().resolve()
        missing = [f"{name}.py" for name in MODULES if not (folder / f"{name}.py").is_file()]
        if missing:
            here = "" if folder.is_dir() else f" ({folder} is no folder)"
            raise ValueError(
                f"{path} is no checkout of the authors' code (git clone https://github.com/sunlicai/HiCMAE): looked in "
                f"it for {', '.join(f'{name}.py' for name in MODULES)}; missing: {', '.join(missing)}{here}"
            )
        with quiet(), importing_from(folder):
            return cls(path=folder, modules={name: _imported(name, folder) for name in MODULES})

    def get(self, module: str, name: str) -> Callable[..., Any]:
        """A function or class of one of the modules.

        Raises:
            ValueError: the module has no such name.
        """
        found = getattr(self.modules[module], name, None)
        if not callable(found):
            near = difflib.get_close_matches(name, vars(self.modules[module]), n=3)
            raise ValueError(
                f"{self.path / module}.py has no function or class {name}"
                f"{f'; near it: {chr(44).join(near)}' if near else ''}: the checkout is of a version whose names differ"
            )
        return found


def _imported(name: str, folder: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        raise ValueError(
            f"{folder / name}.py needs the module {error.name}, which is neither installed nor in the checkout: "
            f"pip install {package}"
        ) from error
    except Exception as error:
        raise ValueError(f"{folder / name}.py cannot be imported: {type(error).__name__}: {error}") from error


# ---------------------------------------------------------------- isolation


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow what the authors' code prints and the warnings that its age causes."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Let imports find the modules in ``folder`` first, and stand-ins for what today's packages lack.

    Afterwards nothing that came from ``folder`` and no stand-in is in ``sys.modules``, what had their names before is
    there again, and no compiled files lie in ``folder``.
    """
    set_aside = {file.stem for file in folder.glob("*.py")}
    known = dict(sys.modules)
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] in set_aside}
    search_path, no_bytecode = list(sys.path), sys.dont_write_bytecode
    with contextlib.ExitStack() as stack:
        for name, module in _stand_ins().items():
            stack.enter_context(_in_place(name, module))
        for name in before:
            del sys.modules[name]
        sys.path.insert(0, str(folder))
        sys.dont_write_bytecode = True
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path[:], sys.dont_write_bytecode = search_path, no_bytecode
            sys.path_importer_cache.pop(str(folder), None)
            # An environment may lie in the checkout: what was imported from it, this library too, stays.
            own = set_aside | {entry.name for entry in folder.iterdir() if entry.is_dir()}
            for name, module in list(sys.modules.items()):
                if name.split(".")[0] in own and known.get(name) is not module and _lies_in(module, folder):
                    del sys.modules[name]
            sys.modules.update(before)


def _lies_in(module: ModuleType, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and folder in Path(file).resolve().parents


@contextlib.contextmanager
def _in_place(name: str, module: ModuleType) -> Iterator[None]:
    was_there, before = name in sys.modules, sys.modules.get(name)
    sys.modules[name] = module
    try:
        yield
    finally:
        del sys.modules[name]
        if was_there:
            sys.modules[name] = before  # type: ignore[assignment]


# ---------------------------------------------------------------- stand-ins

_LEFT_OUT = {
    "scipy.special": ("softmax",),
    "timm.optim.adafactor": ("Adafactor",),
    "timm.optim.adahessian": ("Adahessian",),
    "timm.optim.adamp": ("AdamP",),
    "timm.optim.lookahead": ("Lookahead",),
    "timm.optim.nadam": ("Nadam",),
    "timm.optim.radam": ("RAdam",),
    "timm.optim.rmsprop_tf": ("RMSpropTF",),
    "timm.optim.sgdp": ("SGDP",),
}
"""Names that their modules import and that no training step with AdamW uses."""


def _stand_ins() -> dict[str, ModuleType]:
    """By name: modules with everything that is installed under it, and what is lacking there.

    Raises:
        ValueError: timm is not installed.
    """
    try:
        layers = importlib.import_module("timm.layers")
    except ModuleNotFoundError as error:
        raise ValueError('the authors\' code needs timm: pip install "hicmae[train]"') from error
    made = {
        "tensorboardX": _module("tensorboardX", {"SummaryWriter": _unusable("tensorboardX.SummaryWriter")}),
        "torch._six": _module("torch._six", {"inf": math.inf}),
        "timm.models.layers": _module("timm.models.layers", vars(layers)),
        # The real one would enter their models into timm's list for the rest of the process.
        "timm.models.registry": _module("timm.models.registry", {"register_model": lambda function: function}),
    }
    for name, wanted in _LEFT_OUT.items():
        try:
            there = vars(importlib.import_module(name))
        except ImportError:
            there = {}
        if lacking := [one for one in wanted if one not in there]:
            made[name] = _module(name, there | {one: _unusable(f"{name}.{one}") for one in lacking})
    return made


def _module(name: str, contents: Mapping[str, Any]) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update({key: value for key, value in contents.items() if not key.startswith("__")})
    return module


def _unusable(name: str) -> Callable[..., Any]:
    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError(f"{name} is only a stand-in here")

    return refuse
