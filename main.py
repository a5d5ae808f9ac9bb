"""Start the similarity analysis server: the same as `ondol serve`."""

import sys

try:
    from ondol.cli.invocation import invoke
except ImportError as exc:
    sys.exit(f"main.py: {exc}: the dependencies are not installed for {sys.executable}\nrun this: make run")
if __name__ == "__main__":
    sys.exit(invoke(["serve", *sys.argv[1:]]))
