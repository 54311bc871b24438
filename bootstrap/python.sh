# shellcheck shell=bash
# The Python environment .venv: made from requirements.txt, remade only when that file changes. Sourced by doit.sh.

STAMP=$ROOT/.venv/made-from

# Debian's own comes first: it is what everybody has and what the tests run under, whatever else lies in PATH.
SYSTEM_PYTHON=/usr/bin/python3
ANSWERS_WITHIN=30 # seconds

# find_python: sets PYTHON to a Python of 3.11 or newer that can make environments; fails where there is none. Ends the program
# where the system's own is older: no package that could be installed then would help.
find_python() {
    local candidate version
    for candidate in "$SYSTEM_PYTHON" python3 python3.14 python3.13 python3.12 python3.11; do
        # In braces: of one that crashes, it is the shell that speaks. One that hangs is no Python for us.
        if { /usr/bin/timeout "$ANSWERS_WITHIN" "$candidate" -I -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'; } 2>/dev/null; then
            PYTHON=$candidate
            return
        fi
    done
    { version=$(/usr/bin/timeout "$ANSWERS_WITHIN" "$SYSTEM_PYTHON" -I -S -c 'import sys; print(*sys.version_info[:2], sep=".")'); } 2>/dev/null || return 1
    case $version in
        [0-2].* | 3.? | 3.10) die "$SYSTEM_PYTHON is Python $version, and 3.11 or newer with its venv module is needed: install one" ;;
    esac
    return 1
}

# environment_key PYTHON: what .venv was made from; scripts in it hold the checkout's path
environment_key() {
    sha256sum <"$ROOT/requirements.txt" | cut -d ' ' -f 1
    grep -F ' = "pipeline.cli.program' "$ROOT/pyproject.toml" # the script that it has been given
    "$1" -I -S -c 'import sys; print(*sys.version_info[:2], sep=".")' && printf '%s\n' "$ROOT"
}

environment_is_ready() {
    [ -x "$ROOT/.venv/bin/doit" ] && [ -r "$STAMP" ] &&
        [ "$(environment_key "$ROOT/.venv/bin/python" 2>/dev/null)" = "$(cat "$STAMP")" ]
}

# make_environment: .venv with every package of requirements.txt and this one in place
make_environment() {
    local log=$ROOT/build/pip.log pip
    say "making the Python environment .venv from requirements.txt"
    mkdir -p "$ROOT/build"
    pip=("$ROOT/.venv/bin/python" -m pip --disable-pip-version-check --no-input install --quiet)
    if ! {
        rm -rf "$ROOT/.venv" && "$PYTHON" -m venv "$ROOT/.venv" &&
            "${pip[@]}" --require-hashes --no-deps --requirement "$ROOT/requirements.txt" &&
            "${pip[@]}" --no-build-isolation --no-deps --no-index --editable "$ROOT" &&
            "$ROOT/.venv/bin/python" -m compileall -q "$ROOT/dodo.py" "$ROOT/pipeline" # as pip does with the others
    } >"$log" 2>&1 </dev/null; then
        tail -n 5 "$log" >&2
        die "the Python environment could not be made: see build/pip.log, mend the network or pip's settings, and run again"
    fi
    environment_key "$ROOT/.venv/bin/python" >"$STAMP.new" && mv "$STAMP.new" "$STAMP"
}
