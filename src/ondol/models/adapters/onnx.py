"""adapter: any ONNX model through onnxruntime, answering from mapped weights while its fast session is built.

The output of the two sessions may differ in the last bits: the fast one computes with rewritten graphs.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ondol.errors import ConfigurationError, ModelLoadError
from ondol.extras import import_extra
from ondol.models.adapters.onnx_files import find_model, layout_of, mappable_copy, model_bytes
from ondol.models.adapters.two_stage import TwoStage
from ondol.units import MIB

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from ondol.models.adapters.onnx_layout import Layout
    from ondol.models.adapters.two_stage import Stage

__all__ = ["OnnxModel", "onnx_model"]

logger = logging.getLogger("ondol.models")

# Weights below this are read and packed in less time than a second session is worth.
_LEAST_TWO_STAGE_BYTES: Final = 8 * MIB
_MOST_THREADS: Final = 4
_ERRORS_AND_WORSE: Final = 3
_CPU: Final = "CPUExecutionProvider"


class OnnxModel:
    """An ONNX model that computes. Made by :func:`onnx_model`.

    Thread-safety: everything may be called from any thread; calls overlap.
    """

    def __init__(
        self, stages: TwoStage, *, input_names: tuple[str, ...], output_names: tuple[str, ...], size_bytes: int
    ) -> None:
        """Wrap sessions that are open."""
        self._stages = stages
        self.input_names = input_names
        self.output_names = output_names
        self.size_bytes = size_bytes
        """Bytes of its files, which is what either session holds of weights: what it counts in a budget. While the
        fast one is built there are both; the pages of the mapped one can be dropped by the system at any time."""

    def run(
        self, feeds: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> list[npt.NDArray[Any]]:
        """Return ``outputs`` (all of them with ``None``) computed from ``feeds``.

        Raises:
            AlreadyClosedError: the model was closed.
            ModelError: the runtime refused the input, or failed; ``__cause__`` is its own error.
        """
        names = None if outputs is None else list(outputs)
        results: list[npt.NDArray[np.generic]] = self._stages.run(names, dict(feeds))
        return results

    @property
    def stage(self) -> Stage:
        """``"mapped"`` while the session over the mapped weights answers, then ``"fast"``."""
        return self._stages.stage

    @property
    def fault(self) -> str | None:
        """Why the fast session could not be built; the mapped one serves on then."""
        return self._stages.fault

    def wait_until_fast(self, timeout_s: float | None = None) -> bool:
        """Return whether the fast session serves, as soon as that is decided or ``timeout_s`` has passed."""
        return self._stages.wait_until_fast(timeout_s)

    def close(self) -> None:
        """Wait for the calls under way, release the sessions, and give their memory back; safe at any time."""
        self._stages.close()


def onnx_model(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    is_two_stage: bool = True,
    weights_dir: str | os.PathLike[str] | None = None,
    providers: Sequence[str] = (_CPU,),
) -> OnnxModel:
    """Load an ONNX model; a function for ``ModelSpec(load=functools.partial(onnx_model, …), unload=OnnxModel.close)``.

    Two stages need weights that can be mapped, in files beside the model (*external data*). A model that has
    them inside its one file is copied once to ``weights_dir`` in that form; without ``weights_dir`` it is loaded
    in one stage, as onnxruntime does.

    External data is mapped as long as the mapped session serves: replace such a file by another one of its name,
    never write into it.

    Args:
        path: the file, or the folder that holds it (``model.onnx``, ``onnx/model.onnx`` or the only one).
        threads: to compute with; as a rule one less than the process may use at once, at least 1 and at most 4.
        is_two_stage: ``False`` loads the fast session at once.
        weights_dir: where copies with mappable weights are kept, in a folder that is this user's or root's and that
            nobody else may change; each takes as much room as its model. It is made if need be.
        providers: onnxruntime's execution providers; two stages are for the CPU's only.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ConfigurationError: ``threads`` is no positive number, this onnxruntime has no such provider, or others may
            change ``weights_dir``.
        ModelLoadError: there is no model, its weights are not in its folder, or it cannot be loaded; ``__cause__``
            holds the runtime's error.
    """
    given: object = threads  # may come from a configuration file
    if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
        message = f"threads must be a number from 1 on, not {threads!r}"
        raise ConfigurationError(message)
    runtime = import_extra("onnxruntime", package="onnxruntime", extra="onnx", purpose="loading ONNX models")
    _check_providers(providers, runtime.get_available_providers())
    model = find_model(path)
    sessions = _Sessions(runtime, model, threads or _default_threads(), providers)
    layout = layout_of(model)
    is_staged = is_two_stage and tuple(providers) == (_CPU,)
    size_bytes = model_bytes(model, layout)
    if is_staged:
        is_staged = sessions.use_mappable(layout, size_bytes, weights_dir)
    return _opened(sessions, size_bytes, is_staged=is_staged)


def _check_providers(providers: Sequence[str], available: Sequence[str]) -> None:
    if isinstance(providers, str) or not providers or not set(providers) <= set(available):
        message = f"providers must be some of {', '.join(available)}, which this onnxruntime has, not {providers!r}"
        raise ConfigurationError(message)


def _opened(sessions: _Sessions, size_bytes: int, *, is_staged: bool) -> OnnxModel:
    first = _mapped_or_none(sessions) if is_staged else None
    is_staged = first is not None
    try:
        first = first or sessions.build_original()
    except Exception as exc:
        exc.__traceback__ = None  # its frames hold a half made session: it would live as long as the error
        message = f"the ONNX model {sessions.model} cannot be loaded: {exc}"
        raise ModelLoadError(message) from exc
    stages = TwoStage(
        sessions.model.stem if sessions.model.stem != "model" else sessions.model.parent.name,
        first,
        sessions if is_staged else None,
        is_low_urgency=sessions.threads == 1,
    )
    model = OnnxModel(
        stages,
        input_names=tuple(item.name for item in first.get_inputs()),
        output_names=tuple(item.name for item in first.get_outputs()),
        size_bytes=size_bytes,
    )
    stages.start()
    return model


def _mapped_or_none(sessions: _Sessions) -> Any:
    try:
        return sessions.open_mapped()
    except Exception as exc:  # noqa: BLE001  # where the model itself is at fault, the other session tells
        logger.warning("%s cannot serve from mapped weights, so it loads in one stage: %s", sessions.model, exc)
        return None


class _Sessions:
    """Opens the sessions of one model; is the :class:`~ondol.models.adapters.two_stage.Builder` of the fast one."""

    def __init__(self, runtime: Any, model: Path, threads: int, providers: Sequence[str]) -> None:
        self._runtime = runtime
        self.model = model
        self.threads = threads
        self._readable = model
        self._providers = list(providers)
        self._fast_options = self._options()

    def use_mappable(self, layout: Layout, size_bytes: int, weights_dir: str | os.PathLike[str] | None) -> bool:
        """Read the weights from where they can be mapped; return whether that, and two stages, make sense."""
        if layout.locations:
            return size_bytes >= _LEAST_TWO_STAGE_BYTES and layout.inline_bytes * 2 < size_bytes
        if layout.inline_bytes < _LEAST_TWO_STAGE_BYTES or weights_dir is None:
            return False
        try:
            self._readable = mappable_copy(self.model, Path(weights_dir))
        except OSError:
            logger.warning("no mappable copy of %s could be made; it loads in one stage", self.model, exc_info=True)
            return False
        return True

    def open_mapped(self) -> Any:
        """Return a session that reads no weight before it needs it: nothing is rewritten, packed or copied."""
        options = self._options()
        options.graph_optimization_level = self._runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")
        return self._open(options)

    def build(self) -> Any:
        """Return the session that onnxruntime makes by itself: optimised and packed for this processor."""
        return self._open(self._fast_options)

    def build_original(self) -> Any:
        """Return what :meth:`build` does, from the model's own file even where there is a copy."""
        self._readable = self.model
        return self.build()

    def cancel(self) -> None:
        """Let :meth:`build` fail soon, where this version of onnxruntime can."""
        cancel = getattr(self._fast_options, "set_load_cancellation_flag", None)
        if cancel is not None:
            cancel(True)  # noqa: FBT003  # the runtime's own signature

    def _options(self) -> Any:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = _ERRORS_AND_WORSE
        return options

    def _open(self, options: Any) -> Any:
        # Without its fall-back: that prints to standard output, and would compute elsewhere than asked for.
        return self._runtime.InferenceSession(
            str(self._readable), options, providers=self._providers, enable_fallback=0
        )


def _default_threads() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    usable = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min(_MOST_THREADS, usable - 1))
