# shellcheck shell=sh
# What is said: one line each, on stderr, so that stdout is the document alone. And files of one line, written whole.

say() { printf 'nvidia-driver-host: %s\n' "$*" >&2; }
warn() { say "warning: $*"; }

# die STATUS LINE: only from the main shell; in a $(…) it would end the subshell alone.
die() {
    DIE=$1
    shift
    say "$*"
    exit "$DIE"
}

# first_line FILE: into LINE, empty where the file cannot be read.
first_line() {
    LINE=''
    [ -r "$1" ] || return 0
    { IFS= read -r LINE || :; } < "$1" 2> /dev/null
}

# keep FILE TEXT: whole or not at all, so that a power cut leaves the old text or the new one.
keep() {
    { [ -d "${1%/*}" ] || mkdir -p "${1%/*}"; } && printf '%s\n' "$2" > "$1.new" && mv -f "$1.new" "$1" || die 1 "cannot write $1: is the disk full, or read-only?"
}

json_escape() { tr -d '\000-\011\013-\037' | sed 's/[\\"]/\\&/g'; }
json_string() { printf '"%s"' "$(printf '%s\n' "$1" | json_escape)"; }

now() { date +%s; }

# clock SECONDS: as people read it; not every date knows -d @.
clock() { date -u -d "@$1" +%Y-%m-%dT%H:%M:%SZ 2> /dev/null || printf '%s s\n' "$1"; }

# pause SECONDS: SLEEP is another program that waits.
pause() { "${SLEEP:-sleep}" "$1"; }

# limited SECONDS COMMAND…: nothing that this program starts runs for ever.
# Descriptor 9 is the turn, which nothing that is started may go on holding.
limited() { timeout "$@" 9>&-; }
