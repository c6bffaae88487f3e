#!/usr/bin/env bash
# Sets Easel up once and runs it: ./webui.sh [arguments of app.py], ./webui.sh test [arguments of pytest].
# Variables: COMMANDLINE_ARGS, python_cmd, venv_dir ("-" for none), TORCH_INDEX_URL; webui-user.sh may set them.
set -u -o pipefail

fail() { echo "webui.sh: $1" >&2; exit 1; }

here=$(cd -P "$(dirname "$(readlink -f "${BASH_SOURCE[0]}" 2>/dev/null || echo "${BASH_SOURCE[0]}")")" && pwd) || exit 1
cd "$here" || fail "cannot enter $here"
# shellcheck disable=SC1091
if [ -f webui-user.sh ]; then . ./webui-user.sh; fi
if [ "${1:-}" = "-f" ]; then shift; fi  # "run as root" elsewhere; nothing to allow here

export COMMANDLINE_ARGS="${COMMANDLINE_ARGS:-}" PIP_DISABLE_PIP_VERSION_CHECK=1
venv=${venv_dir:-venv}
needed_gb=3

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    if [ -n "${python_cmd:-}" ]; then
        command -v "$python_cmd" >/dev/null || fail "python_cmd is $python_cmd, and there is no such program"
        new_enough "$python_cmd" || fail "$python_cmd is $("$python_cmd" --version 2>&1): Python 3.11 or newer is needed"
        echo "$python_cmd"
        return
    fi
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if command -v "$candidate" >/dev/null && new_enough "$candidate"; then echo "$candidate"; return; fi
    done
    fail "Python 3.11 or newer is needed, found $(python3 --version 2>/dev/null || echo none): install it, or set python_cmd"
}

make_venv() {
    local base free
    base=$(find_python) || exit 1
    "$base" -c 'import venv, ensurepip' 2>/dev/null || fail "$base has no venv module: install it (Debian, Ubuntu: apt install python3-venv)"
    mkdir -p "$venv" 2>/dev/null || fail "$venv cannot be made: is the folder writable?"
    free=$(df -Pk "$venv" | awk 'NR==2 {print int($4 / 1048576)}')
    [ "$free" -ge "$needed_gb" ] || fail "$free GB are free where $venv is; about $needed_gb GB are needed"
    echo "Making a virtual environment in $venv"
    "$base" -m venv --clear "$venv" || fail "the virtual environment could not be made in $venv"
}

pip_install() {
    "$python" -m pip install --retries 2 --progress-bar off "$@" 2>&1 | tee -a "$log" | grep --line-buffered -E '^ *(Collecting|Downloading|Installing collected)'
    [ "${PIPESTATUS[0]}" -eq 0 ] && return
    rm -f "$venv/.installing"
    grep -qi 'no space left' "$log" && fail "the disk is full: about $needed_gb GB are needed (log: $log)"
    grep -qiE 'NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError|network is unreachable' "$log" \
        && fail "the packages cannot be fetched: is there a network? (log: $log)"
    fail "the installation failed: $(grep -i '^error' "$log" | tail -n 1) (log: $log)"
}

# install NAME FILE: what FILE lists, unless the very same list is installed already. A copy of the list is the stamp.
install() {
    local stamp="$venv/.$1.installed" list
    list=$(cat "$2" && echo "# torch from ${TORCH_INDEX_URL:-the package index}")
    [ "$list" = "$(cat "$stamp" 2>/dev/null)" ] && return
    log="$here/$venv/install.log"; case $venv in /*) log="$venv/install.log";; esac
    : > "$log" || fail "$venv cannot be written"
    touch "$venv/.installing"
    echo "Installing what $2 lists: this takes some minutes the first time"
    if [ "$1" = program ]; then
        pip_install "$(grep '^torch==' "$2")" ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"}
    fi
    pip_install -r "$2"
    rm -f "$venv/.installing"
    printf '%s\n' "$list" > "$stamp"
}

if [ "$venv" = "-" ]; then
    python=$(find_python) || exit 1
else
    if [ -e "$venv/.installing" ]; then echo "The last installation was interrupted: starting over"; make_venv
    elif ! "$venv/bin/python" -c '' 2>/dev/null; then make_venv; fi
    python="$venv/bin/python"
    install program requirements.txt
    if [ "${1:-}" = test ]; then install tests requirements-test.txt; fi
fi

if [ "${1:-}" = test ]; then shift; exec "$python" -m pytest "$@"; fi
exec "$python" app.py "$@"
