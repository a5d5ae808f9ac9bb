"""service: live metrics, the machine's health, alerts, and the logs."""

from __future__ import annotations

from ondol.monitor.alerts import AlertEvent, AlertRule
from ondol.monitor.default_rules import DEFAULT_RULES
from ondol.monitor.monitor import PerformanceMonitor, make_monitor_performance
from ondol.monitor.snapshots import MetricSnapshot

__all__ = [
    "DEFAULT_RULES",
    "AlertEvent",
    "AlertRule",
    "MetricSnapshot",
    "PerformanceMonitor",
    "make_monitor_performance",
]
