"""adapter: the JSON forms of models, of actions on them, and of the loading strategy."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

__all__ = [
    "ModelCard",
    "ModelList",
    "ModelOperation",
    "ModelReadiness",
    "ModelStatus",
    "OperationList",
    "Readiness",
    "Strategy",
    "StrategyRequest",
]

State = Annotated[
    Literal[
        "registered",
        "queued",
        "loading",
        "warming",
        "ready",
        "draining",
        "unloaded",
        "failed",
        "backoff",
        "quarantined",
        "blocked",
    ],
    Meta(description="Where the model is in its life."),
]
Progress = Annotated[
    float | None, Meta(description="Of the load under way, 0 to 1, by learnt load times; 1 when ready, null unknown.")
]
Eta = Annotated[float | None, Meta(description="Seconds until it is ready, by learnt load times; null unknown.")]
Since = Annotated[float, Meta(description="How long it has been in that state.")]
LastError = Annotated[
    str | None, Meta(description="Of the last load that failed, or crash; null since a load succeeded.")
]
WallTime = Annotated[float | None, Meta(description="Seconds since 1970; null when it never happened.")]


class ModelStatus(msgspec.Struct, kw_only=True):
    """Everything that is known of one model in memory, or on its way there."""

    name: str
    state: State
    reason: Annotated[str, Meta(description="Why it is in that state, as a sentence.")]
    since_s: Since
    residency: Literal["lazy", "eager", "pinned"]
    priority: Annotated[int, Meta(description="1 to 10; 10 loads first.")]
    depends_on: list[str]
    waits_on: Annotated[list[str], Meta(description="The dependencies that hold it up.")]
    leases: Annotated[int, Meta(description="How many requests hold it now.")]
    size_bytes: Annotated[int | None, Meta(description="Measured, else expected.")]
    load_seconds: Annotated[float | None, Meta(description="Learnt, else expected.")]
    load_count: int
    failure_count: int
    last_error: LastError
    is_warm: bool
    version: str
    isolation: Literal["thread", "process"]
    is_pinned: Annotated[bool, Meta(description="Whether it is never evicted.")]
    progress: Progress
    eta_s: Eta
    retry_in_s: Annotated[float | None, Meta(description="Seconds until a failed load is tried again.")]
    failures_in_a_row: int
    idle_ttl_s: Annotated[float | None, Meta(description="Unloaded after so long without use; null is never.")]
    changed_at: WallTime
    loaded_at: WallTime
    last_used_at: WallTime
    last_error_at: WallTime


class ModelCard(msgspec.Struct, kw_only=True):
    """A model, in OpenAI's form with its state beside. Models that do not embed texts have no dimension."""

    id: str
    object: Literal["model"] = "model"
    created: Annotated[int, Meta(description="When this server started to offer it, in seconds since 1970.")]
    owned_by: Annotated[str, Meta(description="The package that brings it; `ondol` for models of your own.")]
    description: str
    dimension: Annotated[int | None, Meta(description="Numbers in a vector.")]
    max_batch: Annotated[int | None, Meta(description="Texts computed at once; requests may hold more.")]
    is_installed: bool
    is_default: bool
    state: Annotated[str, Meta(description="As in `status`, or `unavailable`.", examples=["registered", "ready"])]
    ready: Annotated[bool, Meta(description="Whether it answers without loading first.")]
    reason: Annotated[str, Meta(description="Why it is in that state.")]
    status: Annotated[ModelStatus | None, Meta(description="Null for a model that is not installed.")]


class ModelList(msgspec.Struct, kw_only=True):
    """Every model that is known here."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class ModelReadiness(msgspec.Struct, kw_only=True):
    """Whether one model is ready."""

    name: str
    state: str
    ready: bool
    reason: str
    since_s: Since
    progress: Progress
    eta_s: Eta
    last_error: LastError


class Readiness(msgspec.Struct, kw_only=True):
    """Whether requests may be sent, and the state of each model."""

    ready: bool
    models: list[ModelReadiness]


class ModelOperation(msgspec.Struct, kw_only=True):
    """One action on one model, running or ended."""

    id: str
    model: str
    action: Literal["load", "unload", "pin", "unpin", "reload", "release"]
    status: Literal["running", "succeeded", "failed"]
    progress: Annotated[float | None, Meta(description="0 to 1, by learnt load times; null when nobody can tell.")]
    eta_s: Annotated[float | None, Meta(description="Seconds until it ends, by the same.")]
    detail: Annotated[str, Meta(description="What the model does while it runs.", examples=["loading: for 0.8 s"])]
    error: Annotated[str | None, Meta(description="What went wrong, when it failed.")]
    error_type: Annotated[str | None, Meta(description="The class of the error.", examples=["ModelLoadError"])]
    created_at: Annotated[float, Meta(description="Seconds since 1970.")]
    ended_at: Annotated[float | None, Meta(description="Seconds since 1970; null while it runs.")]


class OperationList(msgspec.Struct, kw_only=True):
    """The operations that are remembered, the newest first."""

    data: list[ModelOperation]


class StrategyRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Loading variables to change; what is absent or null stays as it is."""

    environment: Annotated[
        Literal["development", "production", "testing"] | None,
        Meta(description="Take the three variables of this profile; what else is given wins over it."),
    ] = None
    fast_startup: Annotated[bool | None, Meta(description="`FAST_STARTUP`.")] = None
    lazy_loading_enabled: Annotated[bool | None, Meta(description="`LAZY_LOADING_ENABLED`.")] = None
    preload_models: Annotated[bool | None, Meta(description="`PRELOAD_MODELS`.")] = None


class Strategy(msgspec.Struct, kw_only=True):
    """The loading variables, and what they mean together."""

    fast_startup: bool
    lazy_loading_enabled: bool
    preload_models: bool
    is_preloading_all: Annotated[bool, Meta(description="Every model is loaded without being asked for.")]
    is_ready_after_preload: Annotated[bool, Meta(description="Readiness waits until they are warm.")]
    is_lazy_loading_enabled: Annotated[bool, Meta(description="A first use may load a model.")]
    meaning: Annotated[str, Meta(examples=["ready at once; a model loads on its first use"])]
    warnings: Annotated[list[str], Meta(description="Contradictions, each with what wins.")]
