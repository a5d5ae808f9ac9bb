"""The model of benchmarks/models_isolation.py, in a module that imports no more than it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

__all__ = ["Weights", "load", "serve_peer"]


class Weights:
    """A model whose weights are mapped."""

    def __init__(self, path: str) -> None:
        """Map the file and touch every page."""
        self.weights = np.memmap(path, dtype=np.float32, mode="r")
        self.total = float(self.weights.sum())

    def echo(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return what was sent: nothing but the way is measured."""
        return array


def load(path: str) -> Weights:
    """Load the model."""
    return Weights(path)


def serve_peer(path: str, connection: Connection) -> None:
    """Be the peer's process: load, say so, echo until told to end."""
    model = load(path)
    connection.send("ready")
    while (request := connection.recv()) is not None:
        connection.send(model.echo(request))
