"""service: preloading: models are loaded ahead of their use, by dependency, priority and learned use."""

from __future__ import annotations

from ondol.preload.preloader import Preloader

__all__ = ["Preloader"]
