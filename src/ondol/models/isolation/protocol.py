"""decision: what the parent, the fork server and its children have to agree on."""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["COMMAND", "DESCRIPTORS_PER_CHILD", "EXIT_OUT_OF_MEMORY", "FORK", "REPORT", "SIGNAL"]

COMMAND: Final = struct.Struct("<BQi")
"""To the fork server: what, child number, signal number."""
FORK: Final = 1
SIGNAL: Final = 2
"""Goes to the child and to the processes that it has started."""
REPORT: Final = struct.Struct("<i")
"""From the fork server, of each child: first its process id (or the negative errno of a failed fork), then its exit
code (or the negative number of the signal that ended it)."""
DESCRIPTORS_PER_CHILD: Final = 4
"""Go with ``FORK``: reports (first, so that a refusal can be told), socket, standard output, standard error."""
EXIT_OUT_OF_MEMORY: Final = 12
"""Exit code after a ``MemoryError``: the number of ENOMEM. What is left of the model cannot be trusted."""
