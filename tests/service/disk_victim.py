"""A process that puts into a disk tier and takes away again, until it is killed.

    python disk_victim.py FOLDER FIRST_NUMBER

It says on standard output what has certainly been written: ``gone KEY`` after an invalidation was flushed.
Every frame is made of its key and a number, so that whoever reads it can tell whether it is whole.
"""

from __future__ import annotations

import itertools
import sys
import zlib

from ondol.cache.disk import DiskTier
from ondol.cache.frame import StoredEntry, decode_frame, encode_frame
from ondol.cache.ports import Invalidation
from ondol.clock import SystemClock
from ondol.units import MIB

__all__ = ["BOUND_BYTES", "check", "value_of"]

BOUND_BYTES = 4 * MIB


def value_of(key: str, number: int) -> bytes:
    """Return the value that belongs to ``key`` and ``number``."""
    text = f"{key}={number}=".encode()
    return text + zlib.crc32(text).to_bytes(4, "little") * (100 + number * 37 % 900)


def check(key: str, frame: bytes) -> None:
    """Raise unless ``frame`` is a whole one that was put under ``key``."""
    value = decode_frame(key, frame).value
    number = int(value.split(b"=")[1])
    assert value == value_of(key, number)


def say(text: str) -> None:
    """Write it out at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def main() -> None:
    """Write until killed."""
    folder, first = sys.argv[1], int(sys.argv[2])
    tier = DiskTier(folder, BOUND_BYTES, SystemClock())
    tier.open()
    say("open\n")
    for number in itertools.count(first):
        key = f"v:{number % 1500}\x00"
        frame = encode_frame(key, StoredEntry(value_of(key, number), 0.01, 0.0))
        tier.put(key, frame, tags=(f"t{number % 7}",), cost_s=number % 5 / 100)
        if number % 300 == 299:
            tier.invalidate(Invalidation("tag", (f"t{number % 7}",)))
            doomed = [f"gone:{first}:{number}:{place}\x00" for place in range(5)]
            for key in doomed:
                tier.put(key, encode_frame(key, StoredEntry(value_of(key, number), 100.0, 0.0)), cost_s=100.0)
            tier.flush()
            tier.invalidate(Invalidation("keys", tuple(doomed[:3])))
            tier.invalidate(Invalidation("pattern", (f"gone:{first}:{number}:*",)))
            if tier.flush():
                say("".join(f"gone {key}\n" for key in doomed))


if __name__ == "__main__":
    main()
