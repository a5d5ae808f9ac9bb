"""decision: what the loading variables mean together, in one place and in words.

===== ==== ======= ===========================================================================
FAST  LAZY PRELOAD meaning
===== ==== ======= ===========================================================================
true  true  false  development: ready at once; a model loads on its first use
true  true  true   ready at once; all models load behind it, a first use may come before
true  false true   ready at once; all models load behind it, a request waits for its model's load
true  false false  the same: what may not load on use must load ahead of it (a warning says so)
false true  true   ready when all models are warm; one that went away may load again on use
false false true   production: ready when all models are warm; none loads on use
false true  false  ready at once: nothing is asked to be loaded before
false false false  ready when all models are warm: what may not load on use loads ahead of it (warned)
===== ==== ======= ===========================================================================

``ENABLE_BACKGROUND_PRELOADING=false`` wins over ``PRELOAD_MODELS``: nothing is loaded ahead of use. Models then have to
load on use, whatever ``LAZY_LOADING_ENABLED`` says; that is warned of too.

Where nothing loads on use, ``ONDOL_MODEL_IDLE_TTL_S`` is not applied, because what went could not come back; a warning
says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ondol.errors import InvalidSettingError
from ondol.setting_specs import ENVIRONMENTS, PROFILES

if TYPE_CHECKING:
    from ondol.settings import Settings

__all__ = ["LoadingStrategy", "loading_strategy", "switched_settings"]

_NO_WAY_TO_LOAD: Final = (
    "LAZY_LOADING_ENABLED=false and PRELOAD_MODELS=false contradict each other: no model could ever be loaded. "
    "LAZY_LOADING_ENABLED wins: models are loaded ahead of use."
)
_NOT_AHEAD: Final = (
    "ENABLE_BACKGROUND_PRELOADING=false and PRELOAD_MODELS=true contradict each other. "
    "ENABLE_BACKGROUND_PRELOADING wins: nothing is loaded ahead of use."
)
_ONLY_ON_USE: Final = (
    "ENABLE_BACKGROUND_PRELOADING=false and LAZY_LOADING_ENABLED=false contradict each other: no model could ever be "
    "loaded. ENABLE_BACKGROUND_PRELOADING wins: models are loaded on their first use."
)
_NO_WAY_BACK: Final = (
    "LAZY_LOADING_ENABLED=false and ONDOL_MODEL_IDLE_TTL_S contradict each other: a model that went for being idle "
    "could not come back. LAZY_LOADING_ENABLED wins: no model is unloaded for being idle."
)

_MEANINGS: Final = {
    (False, False, True): "ready at once; a model loads on its first use",
    (True, False, True): "ready at once; all models load behind it, a first use may come before",
    (True, False, False): "ready at once; all models load behind it, a request waits for its model's load",
    (True, True, True): "ready when all models are warm; one that went away may load again on use",
    (True, True, False): "ready when all models are warm; none loads on use",
}
"""By the three fields: whether all are preloaded, whether readiness waits for it, whether a first use may load."""


class LoadingStrategy(NamedTuple):
    """The effective meaning of the loading variables."""

    is_preloading_all: bool
    """Whether every registered model is loaded without being asked for."""
    is_ready_after_preload: bool
    """Whether readiness waits until they are warm."""
    is_lazy_loading_enabled: bool
    """Whether a first use may load a model."""
    warnings: tuple[str, ...] = ()
    """Contradictions, each with what wins."""

    @property
    def meaning(self) -> str:
        """What it means, as the table above says it."""
        return _MEANINGS[self.is_preloading_all, self.is_ready_after_preload, self.is_lazy_loading_enabled]


def loading_strategy(settings: Settings) -> LoadingStrategy:
    """Return what ``settings`` mean for loading."""
    if not settings.preloading_enabled:
        return _without_preloading(settings)
    is_preloading = settings.preload_models or not settings.lazy_loading_enabled
    warnings = [_NO_WAY_TO_LOAD] if is_preloading and not settings.preload_models else []
    if settings.model_idle_ttl_s is not None and not settings.lazy_loading_enabled:
        warnings.append(_NO_WAY_BACK)
    return LoadingStrategy(
        is_preloading_all=is_preloading,
        is_ready_after_preload=is_preloading and not settings.fast_startup,
        is_lazy_loading_enabled=settings.lazy_loading_enabled,
        warnings=tuple(warnings),
    )


def _without_preloading(settings: Settings) -> LoadingStrategy:
    warnings = [_NOT_AHEAD] if settings.preload_models else []
    if not settings.lazy_loading_enabled:
        warnings.append(_ONLY_ON_USE)
    return LoadingStrategy(
        is_preloading_all=False,
        is_ready_after_preload=False,
        is_lazy_loading_enabled=True,
        warnings=tuple(warnings),
    )


def switched_settings(
    settings: Settings,
    *,
    environment: str | None = None,
    fast_startup: bool | None = None,
    lazy_loading_enabled: bool | None = None,
    preload_models: bool | None = None,
) -> Settings:
    """Return ``settings`` with other loading variables: those of the profile ``environment``, over them what is given.

    What is ``None`` stays as it is. Nothing else of the profile is taken: the rest of the settings stay, and so does
    the name of their environment.

    Raises:
        InvalidSettingError: there is no such profile.
    """
    if environment is not None and environment not in PROFILES:
        raise InvalidSettingError([f"environment={environment!r} must be one of: {', '.join(ENVIRONMENTS)}"])
    profile = PROFILES[environment] if environment is not None else {}

    def chosen(name: str, given: bool | None) -> bool:
        return bool(profile.get(name, getattr(settings, name))) if given is None else given

    return settings._replace(
        fast_startup=chosen("fast_startup", fast_startup),
        lazy_loading_enabled=chosen("lazy_loading_enabled", lazy_loading_enabled),
        preload_models=chosen("preload_models", preload_models),
    )
