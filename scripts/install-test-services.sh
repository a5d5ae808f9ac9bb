#!/usr/bin/env bash
# Installs what the tests need besides Python: a Chromium for the browser tests and a Redis server for the shared
# cache (Debian's packages; of the server only the program is used, no service has to run).
# Does nothing where they are already there. Without one of them, and without the right to install it, its tests
# are skipped with a word on a developer's machine and fail in CI.
set -euo pipefail

has_updated=""

# install WHAT WHY PACKAGE...: installs Debian packages, or says what to do.
install() {
  local what=$1 why=$2
  shift 2
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "install-test-services: installing Debian's $1"
    export DEBIAN_FRONTEND=noninteractive
    [ -n "$has_updated" ] || apt-get update -qq
    has_updated=yes
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  else
    echo "install-test-services: no $what found; install one for $why (Debian: apt-get install $1)" >&2
  fi
}

if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null && ! command -v google-chrome >/dev/null; then
  install Chromium "the browser tests" chromium fonts-noto-cjk
fi

if ! command -v redis-server >/dev/null && ! command -v valkey-server >/dev/null; then
  # The package starts a service on port 6379 unless it is told not to; the tests start servers of their own.
  policy=/usr/sbin/policy-rc.d
  if [ "$(id -u)" = 0 ] && [ -d /usr/sbin ] && [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  install "Redis or Valkey server" "the tests of the shared cache" redis-server
fi
