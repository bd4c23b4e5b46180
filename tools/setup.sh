#!/usr/bin/env bash
# Make .venv from uv.lock: hashes are checked, the index is whatever this machine uses.
set -euo pipefail
python=$1 uv_version=$2
groups=(dev "${@:3}")

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "twokey: $("$python" --version) is too old. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.12" >&2
  exit 2
fi
if [ ! -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    # Debian and Ubuntu keep this part of Python in a package of its own.
    package=$("$python" -c 'import sys; print(f"python3.{sys.version_info.minor}-venv")')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      echo "twokey: installing $package"
      apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package" >/dev/null
    else
      echo "twokey: Python's venv module is missing. Install it: sudo apt-get install $package" >&2
      exit 2
    fi
  fi
  "$python" -m venv --clear .venv
fi
quiet() { # say nothing unless it fails
  local log; log=$(mktemp); if ! "$@" >"$log" 2>&1; then cat "$log" >&2; rm -f "$log"; exit 1; fi; rm -f "$log"
}
echo "twokey: installing into .venv"
quiet .venv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$uv_version"
requirements=$(mktemp); trap 'rm -f "$requirements"' EXIT
.venv/bin/uv export --quiet --frozen --all-extras ${groups[@]/#/--group } --no-emit-project --format requirements.txt >"$requirements"
# A mirror in pip's settings is uv's too, where uv has none of its own.
index=$(.venv/bin/python -m pip config get global.index-url 2>/dev/null || true)
if [ -n "$index" ] && [ -z "${UV_DEFAULT_INDEX:-}" ]; then export UV_DEFAULT_INDEX=$index; fi
quiet .venv/bin/uv pip install --python .venv/bin/python --require-hashes --requirement "$requirements"
quiet .venv/bin/uv pip install --python .venv/bin/python --no-deps --editable .
