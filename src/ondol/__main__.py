"""service: `python -m ondol` is the same as `ondol`."""

import sys

from ondol.cli.main import main

sys.exit(main())
