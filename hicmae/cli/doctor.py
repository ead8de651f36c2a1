"""``hicmae doctor``: is this machine ready? Says what is wrong and what to do."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_PACKAGES = ("torch", "torchaudio", "torchvision", "av", "numpy", "safetensors", "pandas", "pyarrow")
_TRAINING_PACKAGES = ("lightning", "jsonargparse", "webdataset", "timm", "wandb", "matplotlib")
_OPTIONAL_PACKAGES = ("decord",)


class Trouble(Exception):
    """A check that failed; the message holds the remedy."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--write-to", type=Path, default=Path.cwd(), help="folder that runs will be written to")


def run(args: argparse.Namespace) -> int:
    """Run all checks; returns 1 if one failed."""
    from rich.console import Console
    from rich.table import Table

    table = Table("check", "", "found", title="hicmae doctor")
    failed = False
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", _python),
        ("packages", lambda: _packages(_PACKAGES, "pip install hicmae")),
        ("training packages", lambda: _packages(_TRAINING_PACKAGES, "pip install 'hicmae[train]'")),
        ("matched torch set", _torch_set),
        ("devices", _devices),
        ("decoders", _decoders),
        ("write access", lambda: _write_access(args.write_to)),
        ("one clip decoded", _decode),
        ("one training step", _step),
    ]
    for name, check in checks:
        try:
            found, mark = check(), "[green]ok[/]"
        except Trouble as trouble:
            found, mark, failed = str(trouble), "[red]no[/]", True
        except Exception as error:
            found, mark, failed = f"{type(error).__name__}: {error}", "[red]no[/]", True
        table.add_row(name, mark, found)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    return 1 if failed else 0


def _python() -> str:
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def _versions(names: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
    for name in names:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, None


def _packages(names: tuple[str, ...], remedy: str) -> str:
    versions = dict(_versions(names))
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        raise Trouble(f"missing: {', '.join(missing)}; {remedy}")
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _torch_set() -> str:
    versions = dict(_versions(("torch", "torchaudio", "torchvision")))
    torch, audio, vision = (versions[name] or "none" for name in ("torch", "torchaudio", "torchvision"))
    if not (torch.startswith("2.11.") and audio.startswith("2.11.") and vision.startswith("0.26.")):
        raise Trouble(
            f"torch {torch}, torchaudio {audio}, torchvision {vision} are not the set this version is tested with; "
            "pip install 'torch==2.11.*' 'torchaudio==2.11.*' 'torchvision==0.26.*'"
        )
    return "torch, torchaudio and torchvision fit together"


def _devices() -> str:
    import torch

    if not torch.cuda.is_available():
        return "no GPU: everything runs on the processor, slowly; base-size training needs a GPU"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    bf16 = "with" if torch.cuda.is_bf16_supported(including_emulation=False) else "WITHOUT"
    return f"{', '.join(names)}, {bf16} bfloat16"


def _decoders() -> str:
    found = {name: version for name, version in _versions(("av", *_OPTIONAL_PACKAGES)) if version}
    if "av" not in found:
        raise Trouble("PyAV is missing; pip install av")
    decord = f"decord {found['decord']} (on request)" if "decord" in found else "no decord (not needed)"
    return f"PyAV {found['av']} (default), {decord}"


def _write_access(folder: Path) -> str:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Trouble(f"cannot write to {folder} ({error.strerror}); choose another with --write-to") from error
    stat = os.statvfs(folder)
    return f"{folder}, {stat.f_bavail * stat.f_frsize / 1e9:.0f} GB free"


def _decode() -> str:
    from hicmae.config import InputSpec
    from hicmae.media.decode import decode_clip

    data = _sample_clip()
    started = time.perf_counter()
    clip = decode_clip(data, spec=InputSpec(), name="sample clip")
    elapsed = 1000 * (time.perf_counter() - started)
    if not (clip.has_video and clip.has_audio):
        raise Trouble("a clip with picture and sound came back without one of them; reinstall av")
    return f"{clip.video.shape[0]} frames and {len(clip.waveform) / 16_000:.2f} s of sound in {elapsed:.0f} ms"


def _sample_clip() -> bytes:
    """A synthetic talking face, as mp4."""
    from hicmae.data.synthetic.corpus import CorpusSettings, plan_clips, render_clip, write_mp4

    settings = CorpusSettings()
    frames, sound = render_clip(plan_clips(settings)[0], settings)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_mp4(path, frames, sound)
        return path.read_bytes()


def _step() -> str:
    import numpy as np
    import torch

    from hicmae.config import ModelConfig
    from hicmae.masking import random_mask, tube_mask
    from hicmae.pretraining import HiCMAE

    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = ModelConfig.preset("micro")
    model = HiCMAE(config).to(device)
    rng = np.random.default_rng(0)
    video = torch.randn(2, 3, config.num_frames, config.image_size, config.image_size, device=device)
    log_mel = torch.randn(2, 1, config.audio_frames, config.mel_bins, device=device)
    video_visible = torch.from_numpy(np.stack([tube_mask(rng, config.video_grid, 0.9) for _ in range(2)])).to(device)
    audio_visible = torch.from_numpy(np.stack([random_mask(rng, config.audio_tokens, 0.8) for _ in range(2)])).to(
        device
    )
    started = time.perf_counter()
    loss = model(video, log_mel, video_visible, audio_visible).loss
    loss.backward()
    if not torch.isfinite(loss):
        raise Trouble(f"the loss is {loss.item()}; reinstall torch")
    return f"micro model on {device}, {1000 * (time.perf_counter() - started):.0f} ms"
