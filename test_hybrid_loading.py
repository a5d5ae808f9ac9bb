"""Hybrid loading alone, for the profile of ENVIRONMENT: measured beside its target."""

import sys

from tests.acceptance.hybrid_loading import main


def test_hybrid_loading() -> None:
    assert main() == 0


if __name__ == "__main__":
    sys.exit(main())
