"""The server's start-up, for the profile of ENVIRONMENT: measured beside its target."""

import sys

from tests.acceptance.server_startup import main


def test_server_startup() -> None:
    assert main() == 0


if __name__ == "__main__":
    sys.exit(main())
