# shellcheck shell=bash
# Processes that outlive doit.sh: started in a session of their own, known by a pid file and their command line. Sourced by doit.sh.

# All that a daemon gets to see of this environment, which may hold passwords and keys: daemons outlive the run that had them.
DAEMON_VARIABLES='PATH HOME LANG TMPDIR'

# Values come through a pipe: a proxy's may hold a password, and anybody reads a command line.
# shellcheck disable=SC2016 # the inner shell's words
START_DAEMON='
echo $$ >"$1" && log=$2 && shift 2
for name in $(compgen -e); do unset "$name"; done
while IFS= read -r -d "" pair; do export "${pair?}"; done
exec "$@" >>"$log" 2>&1 </dev/null
'

# spawn ROOT_OR_USER PIDFILE LOG NAMES COMMAND...: start COMMAND in the background, its output added to LOG, in an environment
# of DAEMON_VARIABLES and the further NAMES alone
spawn() {
    local as=as_root name
    [ "$1" = root ] || as='env'
    for name in $DAEMON_VARIABLES $4; do
        [ -z "${!name+set}" ] || printf '%s=%s\0' "$name" "${!name}"
    done | "$as" setsid --fork bash -c "$START_DAEMON" bash "$2" "$3" "${@:5}" >/dev/null 9>&-
}

# pid_of PIDFILE WORD: the process of the file where it lives and WORD is one of its arguments; fails otherwise. Every run asks
# this of each daemon, so it starts no program where it lives or its file is missing. A process that is just executing another
# program has no arguments for a moment (get_mm_cmdline in Linux' fs/proc/base.c), on a busy machine a long one: ask again.
pid_of() {
    local pid word words=() tries=20
    { read -r pid <"$1"; } 2>/dev/null || return 1
    case $pid in '' | *[!0-9]*) return 1 ;; esac
    until { mapfile -d '' -t words <"/proc/$pid/cmdline"; } 2>/dev/null && [ ${#words[@]} -gt 0 ]; do
        tries=$((tries - 1))
        if [ "$tries" -eq 0 ] || ! is_alive "$pid"; then return 1; fi
        sleep 0.05
    done
    for word in "${words[@]}"; do
        [ "$word" != "$2" ] || { printf '%s\n' "$pid" && return; }
    done
    return 1
}

# end PID SECONDS: ask it to end, and make it end where it does not within SECONDS
end() {
    local tenths=$(($2 * 10))
    signal TERM "$1"
    while is_alive "$1"; do
        [ "$tenths" -ne 0 ] || signal KILL "$1"
        [ "$tenths" -gt -50 ] || die "process $1 does not end: see what keeps it, and run again"
        tenths=$((tenths - 1))
        sleep 0.1
    done
}

# signal NAME PID...: as the owner of the processes, or as root; with the shell's own kill, since a bare system has no other
signal() {
    # shellcheck disable=SC2016 # the inner shell's words
    { kill -s "$@" || [ "$(id -u)" -eq 0 ] || as_root sh -c 'kill -s "$@"' sh "$@"; } 2>/dev/null || true
}

# A zombie has ended; only its parent is slow to notice.
is_alive() {
    local state
    state=$(sed -n 's/^State:[[:space:]]*//p' "/proc/$1/status" 2>/dev/null) && [ -n "$state" ] && [ "${state#[ZX]}" = "$state" ]
}

# serves PID PORT: it is that very process which listens on loopback at PORT
serves() {
    local socket
    socket=$(awk -v at="0100007F:$(printf %04X "$2")" '$2 == at && $4 == "0A" { print "socket:[" $10 "]" }' /proc/net/tcp)
    [ -n "$socket" ] && find "/proc/$1/fd" -lname '*' -printf '%l\n' 2>/dev/null | grep -qxF -e "$socket"
}

# wait_until SECONDS COMMAND...: true as soon as COMMAND is
wait_until() {
    local tenths=$(($1 * 10))
    shift
    until "$@"; do
        tenths=$((tenths - 1))
        [ "$tenths" -gt 0 ] || return 1
        sleep 0.1
    done
}
