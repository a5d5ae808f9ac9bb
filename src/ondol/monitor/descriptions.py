"""decision: what each metric that the runtime records measures, in a sentence, for exporters."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ondol.monitor.snapshots import MetricSnapshot

__all__ = ["DESCRIPTIONS", "description_of"]

DESCRIPTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "alerts.active": "1 while the alert of this rule fires, else 0",
        "alerts.notices": "Notices of alerts, by notifier and outcome (sent, failed, dropped)",
        "cache.compute_time": "Time that computing a missing entry took",
        "cache.disk.entries": "Entries in the disk tier",
        "cache.disk.used_bytes": "Bytes in the disk tier",
        "cache.entries": "Entries in the memory tier",
        "cache.hit_rate": "Share of lookups since the last sample that a tier answered",
        "cache.left": "Entries that left the memory tier, by reason",
        "cache.max_bytes": "Bound of the memory tier",
        "cache.saved_time": "Computing time that hits and shared computations saved",
        "cache.shared_time": "Round trips to the shared tier, by operation",
        "cache.tier_failures": "Requests to a tier that failed",
        "cache.tier_hits": "Lookups that a tier answered",
        "cache.used_bytes": "Bytes in the memory tier, keys and overhead included",
        "http.request_seconds": "Duration of requests to the server, by route, method and status",
        "models.crashes": "Crashes of processes that hold models",
        "models.evictions": "Models unloaded for room",
        "models.lease_wait": "Waits for a model that was not ready",
        "models.load_failures": "Loads of models that failed",
        "models.load_time": "Duration of loads of models, warm-up included",
        "monitor.overflow": "Values of metrics for whose names there was no room",
        "preload.failures": "Preloads that failed",
        "preload.fetched": "Models fetched ahead of use",
        "preload.fetched_used": "Models fetched ahead of use that were then used in time",
        "preload.fetched_wasted": "Models fetched ahead of use that were not used in time",
        "preload.load_time": "Duration of preloads",
        "preload.saved_time": "Waiting that fetching ahead saved",
        "process.gc_pause_seconds": "Longest pause of the garbage collector since the last sample",
        "process.loop_lag_seconds": "How late the event loop woke up at worst since the last sample",
        "process.open_files": "Open file descriptors",
        "process.open_files_percent": "Open file descriptors, of the limit",
        "process.rss_bytes": "Resident memory of the process",
        "process.threads": "Threads of the process",
        "service.startup_seconds": "Time from the start of the service to its first being ready",
        "similarity.batch_texts": "Texts that were embedded together",
        "similarity.embed_time": "Time that embedding a batch of texts took",
        "similarity.search_time": "Duration of searches",
        "system.cpu_percent": "CPU use, of the CPUs that this process may use",
        "system.cpu_pressure_percent": "Share of the last ten seconds in which a task waited for a CPU",
        "system.cpu_throttled_percent": "Share of the CPU quota's periods in which the group had to wait",
        "system.disk_percent": "Filling level of the file system of the working directory",
        "system.io_pressure_percent": "Share of the last ten seconds in which a task waited for a disk",
        "system.memory_high_percent": "Used memory, of the limit at which the group is slowed down",
        "system.memory_percent": "Used memory, of the limit at which the process would be killed",
        "system.memory_pressure_percent": "Share of the last ten seconds in which a task waited for memory",
        "system.memory_used_bytes": "Used memory under the tightest limit, page cache that can be dropped left out",
        "tuning.cache_bound_bytes": "Bound of the memory tier, as the tuner has set it",
        "tuning.decisions": "Decisions of the tuner, by action",
    }
)
"""By name of the metric."""


def description_of(snapshot: MetricSnapshot) -> str:
    """Return what the program says that the metric measures, else what we say of our own, else its name."""
    return snapshot.help or DESCRIPTIONS.get(snapshot.name) or f"{snapshot.name}, recorded by ondol"
