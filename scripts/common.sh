# Sourced by the scripts beside it: makes or reuses .venv.
# shellcheck shell=bash

# The newest Python that the package supports and that can make virtual environments.
find_python() {
    local candidate
    for candidate in python3.13 python3.12 python3.11 python3; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
                2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    echo "Python 3.11 or newer with its venv module is needed, and none is on PATH" >&2
    echo "(on Debian: apt-get install python3 python3-venv)." >&2
    return 1
}

# A virtual environment is tied to its path and to the Python that made it: one that was moved,
# half made, or whose Python is gone is made anew.
venv_is_whole() {
    [ -x .venv/bin/python ] &&
        .venv/bin/python -c 'import pathlib, sys, pip
sys.exit(pathlib.Path(sys.prefix).resolve() != pathlib.Path(".venv").resolve())' 2>/dev/null
}

# make_venv EXTRAS: the package in .venv, editable, with these extras; quick when nothing changed.
make_venv() {
    local extras=$1 python stamp wanted
    if ! venv_is_whole; then
        python=$(find_python) || return 1
        echo "making .venv with $python" >&2
        rm -rf .venv
        "$python" -m venv .venv
    fi
    stamp=.venv/installed-$extras
    wanted=$(cksum setup.py pyproject.toml)
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "installing cluster-layer[$extras] and what it needs" >&2
        rm -f "$stamp"
        .venv/bin/python -m pip install -qq --disable-pip-version-check -e ".[$extras]" >&2
        printf '%s\n' "$wanted" >"$stamp"
    fi
}

# install_packages WHO_NEEDS PACKAGE...: from Debian, without starting any service; fails with a
# message where that is not possible.
install_packages() {
    local who=$1 as_root=()
    shift
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    if ! command -v apt-get >/dev/null 2>&1 || { [ ${#as_root[@]} -gt 0 ] && ! sudo -n true 2>/dev/null; }; then
        echo "$who: $*" >&2
        echo "Install them (on Debian, as root: apt-get install $*) and run this again." >&2
        return 1
    fi
    echo "installing from Debian: $*" >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive bash -euo pipefail -s -- "$@" >&2 <<'ROOT'
# Debian starts a service with its installation; what runs here starts its own servers, so for
# this moment policy-rc.d forbids it (101: action forbidden by policy).
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
apt-get update -qq </dev/null
apt-get install -y -qq --no-install-recommends "$@" </dev/null
ROOT
}
