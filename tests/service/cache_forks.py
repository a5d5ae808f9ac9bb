"""Run by a test: forks again and again while other threads use the cache; each child has to be able to use it."""

from __future__ import annotations

import os
import sys
import threading
import warnings

from ondol.cache import Cache

warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tried here

CHILDREN = 60
CHILD_S = 20


def child(cache: Cache) -> None:
    for part in range(20):
        cache.set_nowait("n", part, part, ttl_s=10, tags=["t"])
        assert cache.get_nowait("n", part) == part
    assert cache.get_or_compute_blocking("slow", 1, compute=lambda: "mine") == "mine"
    assert cache.used_bytes == sum(entry.size_bytes for entry in cache.core.memory.entries())


def main() -> int:
    cache = Cache(max_bytes=200_000)
    is_over = threading.Event()
    is_computing, may_end = threading.Event(), threading.Event()

    def hammer(seed: int) -> None:
        number = seed
        while not is_over.is_set():
            number = number * 1103515245 + 12345 & 0x7FFFFFFF
            cache.set_nowait("page", "x" * (number % 900), number % 500, ttl_s=60 if number % 3 else None)
            cache.get_nowait("page", number % 400)

    def compute() -> str:
        is_computing.set()
        may_end.wait()
        return "theirs"

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in (1, 2)]
    threads.append(threading.Thread(target=lambda: cache.get_or_compute_blocking("slow", 1, compute=compute)))
    for thread in threads:
        thread.start()
    is_computing.wait()
    failed = 0
    for _ in range(CHILDREN):
        pid = os.fork()
        if pid == 0:
            threading.Timer(CHILD_S, lambda: os._exit(3)).start()  # a child that hangs
            try:
                child(cache)
            except BaseException:  # noqa: BLE001  # told by the exit status
                os._exit(1)
            os._exit(0)
        failed += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
    is_over.set()
    may_end.set()
    for thread in threads:
        thread.join()
    assert cache.get_nowait("slow", 1) == "theirs"
    return failed


if __name__ == "__main__":
    sys.exit(main())
