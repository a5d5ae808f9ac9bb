"""decision: every error ondol raises on purpose, in one tree.

A message says what is wrong, which value, and what to do about it. Adapters translate the errors of
the libraries they wrap into these (``raise ... from exc``).
"""

from __future__ import annotations

__all__ = [
    "AlreadyClosedError",
    "AlreadyConfiguredError",
    "CacheError",
    "ConfigurationError",
    "CorruptEntryError",
    "DependencyCycleError",
    "EntryTooLargeError",
    "InvalidSettingError",
    "InvalidTextError",
    "LeaseTimeoutError",
    "LifecycleError",
    "MissingExtraError",
    "ModelBudgetError",
    "ModelCallTimeoutError",
    "ModelCrashedError",
    "ModelError",
    "ModelLoadError",
    "ModelNotLoadedError",
    "ModelQuarantinedError",
    "MonitorError",
    "NotStartedError",
    "OndolError",
    "RemoteModelError",
    "ServerError",
    "ServerUnreachableError",
    "SimilarityError",
    "StoreUnavailableError",
    "TooManyOperationsError",
    "UnencodableValueError",
    "UnknownDocumentError",
    "UnknownHintError",
    "UnknownModelError",
    "UnknownOperationError",
    "UnstableKeyError",
]


class OndolError(Exception):
    """Base of every error that ondol raises on purpose."""


class ConfigurationError(OndolError, ValueError):
    """Something was configured in a way that cannot work."""


class InvalidSettingError(ConfigurationError):
    """One or more settings have values that are not allowed; all of them are named."""

    def __init__(self, problems: list[str]) -> None:
        """Join ``problems`` (one sentence each) into one message."""
        self.problems = tuple(problems)
        super().__init__("; ".join(problems) if len(problems) == 1 else "\n".join(f"- {p}" for p in problems))


class AlreadyConfiguredError(ConfigurationError):
    """The default runtime was configured after it had been used."""


class MissingExtraError(ConfigurationError):
    """An optional dependency is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        """Name the missing ``package``, what it is for, and the pip line that installs it."""
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed: pip install 'ondol[{extra}]'"
        )
        self.package = package
        self.extra = extra


class LifecycleError(OndolError, RuntimeError):
    """An object was used outside the part of its life in which that is possible."""


class NotStartedError(LifecycleError):
    """The object has not been started yet."""


class AlreadyClosedError(LifecycleError):
    """The object is shutting down or has been shut down."""


class CacheError(OndolError):
    """Base of the cache's errors."""


class EntryTooLargeError(CacheError):
    """One entry is larger than the whole cache."""


class UnstableKeyError(CacheError, TypeError):
    """A value was used as part of a key that has no stable, collision-free form."""


class StoreUnavailableError(CacheError):
    """A store (of documents, or of a cache's tier) cannot be read or written; ``__cause__`` holds the reason."""


class CorruptEntryError(CacheError):
    """Bytes that were to be a stored entry are not one: damaged, cut off, of another key or of an unknown version."""


class MonitorError(OndolError, ValueError):
    """A metric or an alert rule is not valid."""


class ModelError(OndolError):
    """Base of the errors about models."""


class UnknownModelError(ModelError, LookupError):
    """No model of that name is registered."""

    def __init__(self, name: str, known: list[str]) -> None:
        """Name the unknown model and the ones there are."""
        super().__init__(f"unknown model {name!r}; known models: {', '.join(sorted(known)) or 'none'}")
        self.name = name
        self.known = tuple(sorted(known))


class ModelLoadError(ModelError):
    """A model could not be loaded; ``__cause__`` holds the loader's own error."""


class ModelQuarantinedError(ModelError):
    """A model failed several times in a row and is not tried again until somebody releases it."""


class ModelNotLoadedError(ModelError):
    """The model is registered but not loaded, and loading on first use is switched off."""


class ModelBudgetError(ModelError):
    """A model does not fit into the memory budget."""


class DependencyCycleError(ModelError, ValueError):
    """Models depend on each other in a circle; the message gives the path."""


class LeaseTimeoutError(ModelError, TimeoutError):
    """A model did not become available in time."""


class ModelCallTimeoutError(ModelError, TimeoutError):
    """A call of an isolated model took longer than allowed; its process was ended."""


class ModelCrashedError(ModelError):
    """The process of an isolated model ended while it was needed."""

    def __init__(
        self,
        message: str,
        *,
        exit_code: int | None = None,
        signal_name: str | None = None,
        stderr_tail: tuple[str, ...] = (),
    ) -> None:
        """Keep how it ended: an exit code or the name of a signal (neither is known of a lost process)."""
        super().__init__("\n  ".join([message, *stderr_tail]))
        self.exit_code = exit_code
        self.signal_name = signal_name
        self.stderr_tail = stderr_tail


class RemoteModelError(ModelError):
    """An isolated model raised an exception; ``remote_traceback`` is its text."""

    def __init__(self, message: str, *, type_name: str, remote_traceback: str) -> None:
        """Keep the exception's type by name (``module.Class``) and where it was raised."""
        super().__init__(message)
        self.type_name = type_name
        self.remote_traceback = remote_traceback
        self.add_note(f"in the process of the model:\n{remote_traceback}")


class UnencodableValueError(ModelError, TypeError):
    """A value cannot be sent to or from an isolated model; the message names its type and place."""


class TooManyOperationsError(ModelError):
    """As many operations as are kept run already."""


class UnknownOperationError(ModelError, LookupError):
    """No operation of that id is known (any more)."""


class UnknownHintError(ModelError, LookupError):
    """No preload hint of that id is known (any more)."""


class SimilarityError(OndolError):
    """Base of the errors about texts and documents."""


class InvalidTextError(SimilarityError, ValueError):
    """A text cannot be analysed; ``field`` says where it stood in the input, ``limit`` the bound it broke, if any."""

    def __init__(self, message: str, *, field: str = "text", limit: int | None = None) -> None:
        """Keep the place of the text, and the limit, beside the message."""
        super().__init__(message)
        self.field = field
        self.limit = limit


class UnknownDocumentError(SimilarityError, LookupError):
    """No document of that id is stored."""


class ServerError(OndolError):
    """A running server was asked something and did not give a usable answer."""


class ServerUnreachableError(ServerError):
    """No server answers at the address."""
