#!/usr/bin/env bash
# Makes the machine ready, then hands every word on to doit.
#
#   ./doit.sh [WORD ...]      what 'doit WORD ...' does; without a word: every pinned pair
#   ./doit.sh test [WORD ...] the tests of every change; --full [AREA ...]: all, or whole areas; further words go to pytest
#   ./doit.sh down [--purge]  stop what this script started; --purge deletes its images as well
#   ./doit.sh help [COMMAND]  what doit says of its commands; -h or --help: this
#
# Ready means: the Python environment .venv; a container engine and a registry, private ones where none answers.
# What already serves is left alone: DOCKER_HOST, DRIVER_REGISTRY, the machine's own engine. Root, or sudo, is used to
# install packages and to start an engine, and for nothing else. Everything it says goes to stderr, what doit says to stdout.
set -euo pipefail

ROOT=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
cd "$ROOT"

say() { printf 'doit.sh: %s\n' "$*" >&2; }
die() {
    say "$@"
    exit 2
}

refuse() {
    say "$@"
    exit 3
}

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

# need_root WHAT: ends the program where WHAT cannot be done for want of root
need_root() {
    [ "$(id -u)" -ne 0 ] || return 0
    if command -v sudo >/dev/null; then
        if sudo -n true 2>/dev/null; then return; fi
        if [ -t 0 ] && sudo -v; then return; fi
    fi
    die "root is needed to $1: run it as root or let this user use sudo"
}

# shellcheck source=bootstrap/processes.sh
. "$ROOT/bootstrap/processes.sh"
# shellcheck source=bootstrap/packages.sh
. "$ROOT/bootstrap/packages.sh"
# shellcheck source=bootstrap/words.sh
. "$ROOT/bootstrap/words.sh"
# shellcheck source=bootstrap/python.sh
. "$ROOT/bootstrap/python.sh"
# shellcheck source=bootstrap/engine.sh
. "$ROOT/bootstrap/engine.sh"
# shellcheck source=bootstrap/registry.sh
. "$ROOT/bootstrap/registry.sh"

touch_lock() { printf '%4096s' '' >"$ROOT/build/machine.lock"; }

# Two runs do not both make the machine ready; the lock goes with the process.
alone() {
    local problem
    if ! { [ -d "$ROOT/build" ] && touch_lock; } 2>/dev/null && ! problem=$({ mkdir -p "$ROOT/build" && touch_lock; } 2>&1); then
        die "$ROOT/build: ${problem##*: }: mend its rights, or free some space on its disk"
    fi
    exec 9>"$ROOT/build/machine.lock"
    flock --nonblock 9 || { say "waiting for another run that makes the machine ready" && flock 9; }
}

# some_python: sets PYTHON to one that can make .venv, installed where there is none
some_python() {
    if find_python; then return; fi
    # shellcheck disable=SC2046 # package names have no spaces
    install_packages $(missing "$PYTHON_PACKAGES")
    find_python || die "no Python of 3.11 or newer with its venv module: install one"
}

python_ready() {
    if environment_is_ready; then return; fi
    alone
    if environment_is_ready; then return; fi # the run waited for has made it
    some_python
    make_environment
}

# probe: sets what bootstrap/probe.py tells
probe() {
    local name value
    while IFS='=' read -r name value; do
        case $name in
            engine) engine=$value ;;
            engine_from) engine_from=$value ;;
            engine_problem) engine_problem=$value ;;
            registry_port) registry_port=$value ;;
            registry_answers) registry_answers=$value ;;
        esac
    done < <("$PYTHON" -I -S "$ROOT/bootstrap/probe.py" "$ROOT")
    [ -n "${registry_answers+set}" ] || die "bootstrap/probe.py failed: it needs Python 3.11 or newer"
}

# all_ready LIST...: the Python environment, an engine, a registry, and the packages of the lists; where any of these is not
# there, what the words mean is asked first
all_ready() {
    local engine engine_from engine_problem registry_port registry_answers made='' absent ready=yes
    local packages=("$BASE_PACKAGES" "$PROOF_PACKAGES" "$@")
    if grep -qs '_arm64\.deb"' "$ROOT/versions.lock"; then packages+=("$ARM64_PACKAGES"); fi # its base is made of such
    if environment_is_ready; then
        made=yes
        PYTHON=$ROOT/.venv/bin/python
    else
        some_python
    fi
    probe
    if [ -z "$engine" ]; then
        packages+=("$ENGINE_PACKAGES")
        ready=''
    fi
    if [ -n "$registry_port" ]; then
        packages+=("$REGISTRY_PACKAGES")
        registry_is_ready "$registry_port" "$registry_answers" || ready=''
    fi
    absent=$(missing "${packages[@]}")
    if [ -n "$unclear" ] && { [ -z "$ready" ] || [ -n "$absent$engine_problem" ]; }; then
        [ -n "$made" ] || make_environment
        made=yes
        "$ROOT/.venv/bin/doit" "$unclear" --check-words "${words[@]}" 9>&- || exit
    fi
    if [ -n "$engine" ] && [ -n "$engine_problem" ]; then
        die "no container engine answers at $engine ($engine_problem): mend $engine_from, or unset it to have one started"
    fi
    [ -z "$registry_port" ] || refuse_taken "$registry_port" "$registry_answers"
    # shellcheck disable=SC2086
    install_packages $absent
    [ -n "$engine" ] || need_root "start a container engine (Docker's own: $engine_problem)"
    [ -n "$made" ] || make_environment
    if [ -n "$registry_port" ]; then ensure_registry "$registry_port" "$registry_answers"; fi
    if [ -z "$engine" ]; then start_engine; fi
    if [ "$engine_from" = system ]; then rm -f "$ENGINE_ENV"; fi # of a private one that ended before the system's came
}

down() {
    case $#,${1-} in
        0, | 1,--purge) ;;
        1,-h | 1,--help) usage && return ;;
        *) refuse "down takes --purge or nothing" ;;
    esac
    alone
    stop_registry
    if [ -d "$ENGINE_RUN" ]; then
        need_root "stop the container engine"
        stop_engine
    fi
    if [ $# -gt 0 ]; then
        if [ -d "$ENGINE_DATA/data" ]; then
            need_root "delete the container engine's data"
            as_root rm -rf --one-file-system "$ENGINE_DATA"
        fi
        rm -rf "$ENGINE_DATA" "$REGISTRY_DATA"
    fi
}

# What doit is to run, and the command that has to be asked whether it means anything, where that cannot be told here.
words=("$@")
unclear=''
case ${1-} in
    down)
        shift
        down "$@"
        exit
        ;;
    -h | --help)
        usage
        exit
        ;;
    # What needs no engine, no registry and no root.
    list | render | status | matrix | host | page | update | prune | fetch | help | info | clean | forget | ignore | \
        reset-dep | tabcompletion | --version)
        python_ready
        ;;
    test)
        if asks_for_help "$@"; then
            python_ready
        else
            [ $# -eq 1 ] || unclear='test'
            words=("${@:2}")
            alone
            all_ready "$TEST_PACKAGES" "$ARM64_PACKAGES"
        fi
        ;;
    *)
        [ "${1-}" != run ] || words=("${@:2}")
        if asks_for_help "$@"; then
            python_ready
        else
            refuse_unknown "$@"
            are_tasks "${words[@]}" || is_command "${words[0]}" || unclear='run'
            alone
            all_ready
        fi
        ;;
esac
exec 9>&-
exec "$ROOT/.venv/bin/doit" "$@"
