"""adapter: reads the process environment and the ``.env`` file, the only place that does."""

from __future__ import annotations

import os
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from ondol.errors import ConfigurationError, MissingExtraError
from ondol.settings import ResolvedSettings, Value, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["load_settings"]


def load_settings(
    *,
    environ: Mapping[str, str] | None = None,
    dotenv_path: str | Path | None = ".env",
    arguments: Mapping[str, Value] | None = None,
) -> ResolvedSettings:
    """Read the settings of this process.

    Args:
        environ: in place of ``os.environ``.
        dotenv_path: file with ``NAME=value`` lines, read when it exists; ``None`` reads none.
        arguments: values by field name that win over everything.

    Raises:
        InvalidSettingError: one or more values are not allowed.
        ConfigurationError: the ``.env`` file cannot be read, or has a line that is none; the message names it.
    """
    return resolve(
        environ=os.environ if environ is None else environ,
        dotenv=_read_dotenv(Path(dotenv_path)) if dotenv_path is not None else {},
        arguments=arguments,
    )


def _read_dotenv(path: Path) -> Mapping[str, str | None]:
    if not path.is_file():
        return {}
    try:
        from dotenv import dotenv_values  # noqa: PLC0415  # 10 ms that only a present file is worth
        from dotenv.parser import parse_stream  # noqa: PLC0415  # as above
    except ImportError as exc:
        raise MissingExtraError("python-dotenv", "server", f"reading {path}") from exc
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        message = f"cannot read {path}: {exc}; it must be a UTF-8 text file of NAME=value lines"
        raise ConfigurationError(message) from exc
    broken = [binding.original.line for binding in parse_stream(StringIO(text)) if binding.error]
    if broken:
        lines = ", ".join(str(number) for number in broken)
        raise ConfigurationError(f"cannot read {path}: line {lines} is not of the form NAME=value")
    return dotenv_values(stream=StringIO(text), interpolate=False)
