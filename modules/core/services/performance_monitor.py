"""Monitoring in the default runtime, under the import path that the guide promises."""

from ondol import AlertRule, monitor_performance, performance_monitor

__all__ = ["AlertRule", "monitor_performance", "performance_monitor"]
