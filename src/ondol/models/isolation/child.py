"""service: the process of an isolated model: loads it, then answers one call after the other.

Requests and replies are dictionaries. ``{"do": "load", ...}`` comes first, then any number of ``call`` and ``read``,
then ``end``. A reply is ``{"value": ...}``, or ``{"error": ...}`` for an exception of the model, or ``{"refused":
...}`` for a result that cannot be sent.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import faulthandler
import inspect
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from ondol.errors import UnencodableValueError
from ondol.models.isolation.codec import encode
from ondol.models.isolation.protocol import EXIT_OUT_OF_MEMORY
from ondol.models.isolation.target import find
from ondol.models.isolation.wire import Link

__all__ = ["Plumbing", "run_child"]

_RESERVE_BYTES: Final = 512 * 1024
_OOM_SCORE: Final = "500"
_MAX_TEXT: Final = 10_000
_MAX_TRACEBACK: Final = 100_000


class Plumbing(NamedTuple):
    """The descriptors a child is given."""

    link: int
    stdout: int
    stderr: int


def run_child(plumbing: Plumbing) -> NoReturn:
    """Be the process of one model until told to end, or until nobody is there to tell."""
    _connect_streams(plumbing)
    link = Link(socket.socket(fileno=plumbing.link))
    code = 1
    reserve = [bytearray(_RESERVE_BYTES)]
    try:
        code = _Host(link).serve()
    except MemoryError:
        reserve.clear()  # so that there is room to say what happened
        traceback.print_exc()
        code = EXIT_OUT_OF_MEMORY
    except SystemExit as exc:
        traceback.print_exc()
        code = exc.code if isinstance(exc.code, int) else 1
    except BaseException:  # noqa: BLE001  # the parent learns of it from standard error and the exit code
        traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


def _connect_streams(plumbing: Plumbing) -> None:
    os.dup2(plumbing.stdout, 1)
    os.dup2(plumbing.stderr, 2)
    os.close(plumbing.stdout)
    os.close(plumbing.stderr)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # whatever the preloaded modules put in their place
    faulthandler.enable()
    with contextlib.suppress(OSError):  # rather the model than the service, when the kernel has to choose
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


class _Host:
    """Holds the model and answers for it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._model: Any = None
        self._runner: asyncio.Runner | None = None

    def serve(self) -> int:
        """Answer until the end; return the exit code."""
        try:
            while True:
                request = self._link.receive()
                if request["do"] == "end":
                    break
                is_usable = self._answer(request)
                del request  # arrays must not stay while the next one is waited for
                if not is_usable:
                    return 1
        except (EOFError, ConnectionError):
            pass  # the parent is gone
        self._model = None
        if self._runner is not None:
            self._runner.close()
        atexit._run_exitfuncs()  # noqa: SLF001  # a forked process leaves by os._exit, which runs none of them
        return 0

    def _answer(self, request: dict[str, Any]) -> bool:
        """Do what is asked and reply; return whether there is a model to go on with."""
        try:
            value = self._do(request)
        except MemoryError:
            raise
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001  # it is the caller's
            self._link.send(encode({"error": _describe(exc)}))
            return bool(request["do"] != "load")
        try:
            self._link.send(encode({"value": value}, place="result"), place="result")
        except UnencodableValueError as exc:  # nothing was sent yet
            self._link.send(encode({"refused": str(exc)}))
        return True

    def _do(self, request: dict[str, Any]) -> Any:
        if request["do"] == "load":
            self._load(request)
            return None
        if request["do"] == "read":
            return getattr(self._model, request["name"])
        return self._settled(getattr(self._model, request["name"])(*request["args"], **request["kwargs"]))

    def _load(self, request: dict[str, Any]) -> None:
        os.environ.clear()
        os.environ.update(request["environ"])
        sys.path[:] = request["path"]
        sys.path_importer_cache.clear()  # folders may have come and changed since the fork server looked
        os.chdir(request["folder"])
        if "numpy.random" in sys.modules:  # siblings inherit one state of it; `random` renews its own at a fork
            sys.modules["numpy.random"].seed()
        self._model = self._settled(find(request["loader"])(*request["args"], **request["kwargs"]))

    def _settled(self, result: Any) -> Any:
        """Return ``result``, awaited if it is to be, always on the same loop."""
        if not inspect.isawaitable(result):
            return result
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(_wait_for(result))


async def _wait_for(result: Any) -> Any:
    return await result


def _describe(exc: BaseException) -> dict[str, str]:
    kind = type(exc)
    try:
        text = str.__str__(str(exc))  # a text of a class of its own could not be sent
    except Exception as broken:  # noqa: BLE001  # an exception's own text may fail
        text = f"(its text cannot be had: {type(broken).__name__})"
    try:
        trace = "".join(traceback.format_exception(exc))
    except Exception as broken:  # noqa: BLE001  # for the same reason
        trace = f"(its traceback cannot be had: {type(broken).__name__})"
    name = f"{kind.__module__}.{kind.__qualname__}"
    return {"type": name, "text": _shortened(text, _MAX_TEXT), "traceback": _shortened(trace, _MAX_TRACEBACK)}


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-limit // 2 :]}"
