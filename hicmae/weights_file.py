"""Files of weights: safetensors, which hold tensors by name and nothing that could run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor


def write_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors of any device by their names."""
    # safetensors' own writing of files leaves them readable by their owner alone, whatever the umask says.
    path.write_bytes(save({name: value.detach().cpu().contiguous() for name, value in state.items()}))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no safetensors file, or is damaged.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or is damaged ({error}); copy it again") from error
