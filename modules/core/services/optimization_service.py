"""The default runtime as one service, under the import path that the guide promises."""

from ondol import get_optimization_stats, initialize_optimization, optimization_service, shutdown_optimization

__all__ = ["get_optimization_stats", "initialize_optimization", "optimization_service", "shutdown_optimization"]
