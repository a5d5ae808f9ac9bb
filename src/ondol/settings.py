"""decision: one frozen settings object, and where each value came from.

Nothing here reads the environment or a file: :mod:`ondol.settings_reader` does, and hands mappings in.
Precedence: argument > environment > ``.env`` > profile > default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ondol.errors import InvalidSettingError
from ondol.setting_specs import ENVIRONMENTS, PROFILES, SETTINGS, Origin, Setting, Value
from ondol.units import MIB

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ENVIRONMENTS",
    "PROFILES",
    "SETTINGS",
    "Origin",
    "ResolvedSettings",
    "Setting",
    "Settings",
    "Value",
    "resolve",
]


class Settings(NamedTuple):
    """Every setting of one runtime. ``SETTINGS`` documents each field and its variable."""

    environment: str
    fast_startup: bool
    lazy_loading_enabled: bool
    preload_models: bool
    cache_enabled: bool
    preloading_enabled: bool
    monitoring_enabled: bool
    auto_tuning_enabled: bool
    cache_memory_limit_mb: float
    cache_policy: str
    cache_redis_url: str | None
    cache_namespace: str
    cache_disk_limit_mb: float | None
    preload_max_concurrent: int
    model_memory_limit_mb: float | None
    host: str
    port: int
    data_dir: str
    log_dir: str
    log_level: str
    default_model: str
    model_threads: int | None
    api_key: str | None
    admin_key: str | None
    max_text_chars: int
    max_document_chars: int
    max_batch_texts: int
    max_search_limit: int
    max_body_mb: float
    max_concurrent_requests: int
    lease_timeout_s: float
    load_timeout_s: float
    model_idle_ttl_s: float | None
    shutdown_grace_s: float
    alerts_file: str | None
    alert_webhook_url: str | None
    alert_webhook_secret: str | None
    otel_enabled: bool

    @property
    def cache_memory_limit_bytes(self) -> int:
        """The cache's bound in bytes; at least one: every number above 0 is allowed."""
        return max(1, int(self.cache_memory_limit_mb * MIB))

    @property
    def cache_disk_limit_bytes(self) -> int | None:
        """The bound of the cache's disk tier in bytes, or ``None`` when there is none."""
        return None if self.cache_disk_limit_mb is None else int(self.cache_disk_limit_mb * MIB)

    @property
    def model_memory_limit_bytes(self) -> int | None:
        """The models' bound in bytes, or ``None`` for a share of what the machine allows."""
        return None if self.model_memory_limit_mb is None else max(1, int(self.model_memory_limit_mb * MIB))

    @property
    def max_body_bytes(self) -> int:
        """The largest request body in bytes."""
        return int(self.max_body_mb * MIB)


class ResolvedSettings(NamedTuple):
    """Settings together with where each value came from."""

    values: Settings
    origins: Mapping[str, Origin]

    def rows(self) -> list[dict[str, Value]]:
        """Return one row a setting: variable, value (secrets masked), origin, description."""
        return [
            {
                "variable": setting.variable,
                "value": _shown(setting, getattr(self.values, setting.field)),
                "origin": self.origins[setting.field],
                "description": setting.description,
            }
            for setting in SETTINGS
        ]


def _shown(setting: Setting, value: Value) -> Value:
    return "********" if setting.is_secret and value is not None else value


def resolve(
    *,
    environ: Mapping[str, str] | None = None,
    dotenv: Mapping[str, str | None] | None = None,
    arguments: Mapping[str, Value] | None = None,
) -> ResolvedSettings:
    """Put the sources together by precedence and check every value.

    Args:
        environ: environment variables.
        dotenv: variables of a ``.env`` file; an entry without a value counts as not set.
        arguments: values by *field* name, as code gives them; these win.

    Raises:
        InvalidSettingError: values that are not allowed, all of them in one error.
    """
    given = _Sources(environ or {}, dotenv or {}, dict(arguments or {}))
    problems = [
        f"unknown setting {name!r}; known settings: {', '.join(s.field for s in SETTINGS)}"
        for name in given.arguments
        if name not in Settings._fields
    ]
    problems += [
        _unknown_variable(name, place)
        for place, source in ((".env", given.dotenv), ("environment", given.environ))
        for name in source
        if name.startswith("ONDOL_") and name not in _known_prefixed() and not name.startswith("ONDOL_TEST_")
    ]
    values: dict[str, Value] = {}
    origins: dict[str, Origin] = {}
    profile: Mapping[str, Value] = {}
    for setting in SETTINGS:
        raw, origin = given.find(setting, profile)
        try:
            value = setting.parse(raw) if origin != "default" else setting.default
        except ValueError:
            problems.append(_problem(setting, raw, origin))
            value = setting.default
        values[setting.field], origins[setting.field] = value, origin
        if setting.field == "environment":
            profile = PROFILES[str(value)]
    if problems:
        raise InvalidSettingError(problems)
    return ResolvedSettings(Settings(**values), origins)  # type: ignore[arg-type]  # each value was parsed by its own Setting; a test compares the two field lists


def _known_prefixed() -> list[str]:
    return [setting.variable for setting in SETTINGS if setting.variable.startswith("ONDOL_")]


def _unknown_variable(name: str, place: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  # only a mistake is worth its import

    near = get_close_matches(name, _known_prefixed(), n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(_known_prefixed())}"
    # The value is not shown: a mistyped ONDOL_API_KEY holds a secret.
    return f"{name} ({place}) is not a setting; {hint}"


def _problem(setting: Setting, raw: object, origin: Origin) -> str:
    shown = "********" if setting.is_secret else repr(raw)
    name = setting.field if origin == "argument" else setting.variable
    return f"{name}={shown} (from {origin}) is not allowed: it must be {setting.allowed}"


class _Sources(NamedTuple):
    environ: Mapping[str, str]
    dotenv: Mapping[str, str | None]
    arguments: Mapping[str, Value]

    def find(self, setting: Setting, profile: Mapping[str, Value]) -> tuple[object, Origin]:
        """Return the raw value of highest precedence and its origin."""
        if setting.field in self.arguments:
            return self.arguments[setting.field], "argument"
        # An empty variable counts as not set: `FAST_STARTUP= make run` is how shells take a value back.
        if self.environ.get(setting.variable, "").strip():
            return self.environ[setting.variable], "environment"
        if (self.dotenv.get(setting.variable) or "").strip():
            return self.dotenv[setting.variable], ".env"
        if setting.field in profile:
            return profile[setting.field], "profile"
        return setting.default, "default"
