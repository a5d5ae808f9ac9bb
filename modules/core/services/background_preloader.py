"""Background preloading in the default runtime, under the import path that the guide promises."""

from ondol import background_preloader, preload_hint, record_model_usage, register_preload_task

__all__ = ["background_preloader", "preload_hint", "record_model_usage", "register_preload_task"]
