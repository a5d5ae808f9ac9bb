"""The cache of the default runtime, under the import path that the guide promises."""

from ondol import cache_result, intelligent_cache

__all__ = ["cache_result", "intelligent_cache"]
