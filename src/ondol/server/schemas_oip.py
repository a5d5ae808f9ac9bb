"""adapter: the JSON forms of the Open Inference Protocol and of its model repository extension.

Source: kserve/open-inference-protocol, specification/protocol/inference_rest.md; triton-inference-server,
docs/protocol/extension_model_repository.md. What a request holds beyond these fields is ignored, as servers of the
protocol do.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

__all__ = [
    "OipError",
    "OipIndexEntry",
    "OipIndexRequest",
    "OipLive",
    "OipModel",
    "OipModelReady",
    "OipReady",
    "OipRepositoryRequest",
    "OipServer",
    "OipTensor",
]


class OipServer(msgspec.Struct, kw_only=True):
    """The server."""

    name: str = "ondol"
    version: str
    extensions: list[str]


class OipLive(msgspec.Struct, kw_only=True):
    """Whether the process answers."""

    live: bool = True


class OipReady(msgspec.Struct, kw_only=True):
    """Whether requests may be sent."""

    ready: bool


class OipModelReady(msgspec.Struct, kw_only=True):
    """Whether one model is in memory and warm."""

    name: str
    ready: bool


class OipTensor(msgspec.Struct, kw_only=True):
    """An input or output of a model."""

    name: str
    datatype: str
    shape: list[int]


class OipModel(msgspec.Struct, kw_only=True):
    """One model. Inference is served under `/v1`, so there are no tensors here."""

    name: str
    versions: list[str]
    platform: str = "ondol"
    inputs: list[OipTensor] = []
    outputs: list[OipTensor] = []


class OipIndexRequest(msgspec.Struct, kw_only=True):
    """Which models to list."""

    ready: Annotated[bool, Meta(description="Only those that are ready.")] = False


class OipIndexEntry(msgspec.Struct, kw_only=True):
    """One model of the repository."""

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
    reason: str


class OipRepositoryRequest(msgspec.Struct, kw_only=True):
    """What `load` and `unload` may be told."""

    parameters: Annotated[
        dict[str, Any] | UnsetType,
        Meta(description="`unload_dependents` may be false. A configuration or files of a model are not taken."),
    ] = UNSET


class OipError(msgspec.Struct, kw_only=True):
    """What went wrong."""

    error: str
