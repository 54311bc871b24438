# shellcheck shell=sh
# What is said: one line each, on stderr, so that stdout is the document alone.

say() { printf 'nvidia-driver: %s\n' "$*" >&2; }
warn() { say "warning: $*"; }

# die STATUS LINE: only from the main shell; in a $(…) it would end the subshell alone.
die() {
    DIE=$1
    shift
    say "$*"
    exit "$DIE"
}

# first_line FILE: into LINE, empty where the file cannot be read. A fork-free cat for the one-line files of sysfs.
first_line() {
    LINE=''
    [ -r "$1" ] || return 0
    { IFS= read -r LINE || :; } < "$1"
}

# json_escape: each line of stdin with what JSON forbids in a string taken out or escaped.
json_escape() { tr -d '\000-\011\013-\037' | sed 's/[\\"]/\\&/g'; }

# json_string TEXT
json_string() { printf '"%s"' "$(printf '%s\n' "$1" | json_escape)"; }
