"""facade: loaders for the common formats of models, imported when they are first used.

Each needs its own optional packages (the extras ``onnx``, ``safetensors``, ``joblib``, ``sentence-transformers``).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ondol.models.adapters.joblib_pipeline import trusted_pipeline
    from ondol.models.adapters.onnx import OnnxModel, onnx_model
    from ondol.models.adapters.safetensors import SafetensorsWeights, safetensors_weights
    from ondol.models.adapters.sentence_transformers import SentenceTransformerModel, sentence_transformer

_HOMES = {
    "OnnxModel": "ondol.models.adapters.onnx",
    "SafetensorsWeights": "ondol.models.adapters.safetensors",
    "SentenceTransformerModel": "ondol.models.adapters.sentence_transformers",
    "onnx_model": "ondol.models.adapters.onnx",
    "safetensors_weights": "ondol.models.adapters.safetensors",
    "sentence_transformer": "ondol.models.adapters.sentence_transformers",
    "trusted_pipeline": "ondol.models.adapters.joblib_pipeline",
}

__all__ = [
    "OnnxModel",
    "SafetensorsWeights",
    "SentenceTransformerModel",
    "onnx_model",
    "safetensors_weights",
    "sentence_transformer",
    "trusted_pipeline",
]


def __getattr__(name: str) -> Any:
    """Import the module that holds ``name`` and return it (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        message = f"module 'ondol.models.adapters' has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
