"""HiCMAE: hierarchical contrastive masked autoencoders for audio-visual emotion recognition.

The names below are the stable public interface. They are loaded on first use, so that ``import hicmae`` and
``hicmae --help`` do not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "ModelConfig": "hicmae.config",
    "InputSpec": "hicmae.config",
    "HiCMAE": "hicmae.pretraining",
    "PretrainOutput": "hicmae.pretraining",
    "EmotionRecognizer": "hicmae.recognition",
    "Backbone": "hicmae.backbone",
    "Features": "hicmae.backbone",
    "LayerTokens": "hicmae.backbone",
    "ClipTransform": "hicmae.transform",
    "load_backbone": "hicmae.exported",
    "load_pretraining": "hicmae.exported",
    "load_recognizer": "hicmae.exported",
    "reference": "hicmae.reference",
}

__all__ = [*sorted(_PUBLIC), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hicmae' has no attribute {name!r}")
    module = importlib.import_module(_PUBLIC[name])
    return module if _PUBLIC[name] == f"hicmae.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
