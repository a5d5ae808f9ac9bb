"""Takes a picture of a running server's status page for the README: `python scripts/screenshot.py`.

Needs the development dependencies and an installed Chromium. Let some requests run beforehand, so that the curves
show something.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Error, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LIVE = "#connection[data-state=live]"


def main() -> int:
    """Take the picture; return 0, or 1 with the reason on standard error."""
    options = parse_arguments()
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        print(f"screenshot: none of {', '.join(BROWSERS)} is installed", file=sys.stderr)
        return 1
    try:
        take(options, executable)
    except Error as exc:
        print(f"screenshot: {options.url}: {exc.message}", file=sys.stderr)
        return 1
    print(options.output)
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000/", help="page to show (%(default)s)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "status-page.png", help="(%(default)s)")
    parser.add_argument("--theme", choices=["light", "dark"], default="light", help="(%(default)s)")
    parser.add_argument("--language", choices=["en", "ko"], default="en", help="(%(default)s)")
    parser.add_argument("--width", type=int, default=1200, help="in pixels (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the curves are to grow (%(default)s)")
    return parser.parse_args()


def take(options: argparse.Namespace, executable: str) -> None:
    """Open the page, wait for its curves, and write the picture."""
    # Chromium's own sandbox refuses to work for root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        page = browser.new_page(
            locale=options.language,
            color_scheme=options.theme,
            reduced_motion="reduce",
            viewport={"width": options.width, "height": 800},
        )
        page.goto(options.url)
        page.wait_for_selector(LIVE)
        page.wait_for_timeout(options.seconds * 1000)
        page.wait_for_selector(LIVE)
        page.screenshot(path=options.output, full_page=True)
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
