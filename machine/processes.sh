# shellcheck shell=bash
# Processes that outlive doit.sh: started in a session of their own, known by a pid file and their command line. Sourced by doit.sh.

# spawn ROOT_OR_USER PIDFILE LOG COMMAND...: start COMMAND in the background, its output added to LOG
spawn() {
    local as=as_root
    [ "$1" = root ] || as='env'
    # shellcheck disable=SC2016 # the inner shell's words
    "$as" setsid --fork sh -c 'echo $$ >"$1" && log=$2 && shift 2 && exec "$@" >>"$log" 2>&1' sh "${@:2}" </dev/null >/dev/null 9>&-
}

# pid_of PIDFILE WORD: the process of the file where it lives and WORD is one of its arguments; fails otherwise
pid_of() {
    local pid
    { read -r pid <"$1"; } 2>/dev/null || return 1
    case $pid in '' | *[!0-9]*) return 1 ;; esac
    tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF -e "$2" && printf '%s\n' "$pid"
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
