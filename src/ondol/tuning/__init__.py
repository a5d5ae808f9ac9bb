"""service: settings that adjust themselves while the program runs, each change journalled and undone in the end."""

from __future__ import annotations

from ondol.tuning.tuner import AutoTuner

__all__ = ["AutoTuner"]
