"""The whole system, checked and benchmarked for the profile of ENVIRONMENT: measured beside its target."""

import sys

from tests.acceptance.optimization_system import main


def test_optimization_system() -> None:
    assert main() == 0


if __name__ == "__main__":
    sys.exit(main())
