"""service: the entry of the command line, importable without any third-party package.

An installation without the ``server`` extra gets a sentence instead of a traceback.
"""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: what follows ``ondol`` on the command line; the process's own when not given.

    Returns:
        The exit code: 0 done, 1 failure, 2 wrong usage or invalid input, 3 no server reachable, 130 interrupted.
    """
    # Imports make a lot that stays and hardly any garbage: looking for it costs a tenth of the server's start. The
    # collector is turned on again by the group once the command's module is there; by the server, when it serves.
    gc.disable()
    try:
        from ondol.cli.invocation import invoke

        return invoke(sys.argv[1:] if arguments is None else arguments)
    except ModuleNotFoundError as exc:
        if exc.name != "click":
            raise
        sys.stderr.write("error: the command line needs the package 'click': pip install 'ondol[server]'\n")
        return 1
    except KeyboardInterrupt:  # while importing; later ones are seen to by invoke
        return 130
    finally:
        gc.enable()


if __name__ == "__main__":
    sys.exit(main())
