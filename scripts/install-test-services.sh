#!/usr/bin/env bash
# Installs what the tests need besides Python: a Chromium for the browser tests (Debian's package).
# Does nothing where it is already there. Without it, and without the right to install it, the browser
# tests are skipped with a word on a developer's machine and fail in CI.
set -euo pipefail

if command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null; then
  exit 0
fi
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  echo "install-test-services: installing Debian's chromium"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends chromium fonts-noto-cjk >/dev/null
else
  echo "install-test-services: no Chromium found; install one for the browser tests (Debian: apt-get install chromium)" >&2
fi
