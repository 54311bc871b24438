# shellcheck shell=sh
# The driver's own daemons: persistence, and the Fabric Manager on machines with NVSwitch.

FABRIC_MANAGER=$IMAGE_ROOT/usr/local/nvidia/bin/nv-fabricmanager

# pid_in FILE: the pid there, if it lives.
pid_in() {
    first_line "$1"
    [ -n "$LINE" ] && [ -d "$PROC/$LINE" ] || return 1
    printf '%s\n' "$LINE"
}

# our_daemons: their pids, a line each.
our_daemons() {
    pid_in "$RUN/nvidia-persistenced/nvidia-persistenced.pid" || :
    pid_in "$RUN/nvidia-fabricmanager/nv-fabricmanager.pid" || :
}

# stop_daemons: asks them to end and waits five seconds at most.
stop_daemons() {
    for daemon in $(our_daemons); do
        kill -TERM "$daemon" 2> /dev/null || continue
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            [ -d "$PROC/$daemon" ] || continue 2
            sleep 0.5
        done
        warn "process $daemon (persistence daemon or Fabric Manager) does not end on SIGTERM"
    done
}

# needs_fabric: whether this run has to start the Fabric Manager.
needs_fabric() { [ -n "$(switches)" ] && [ "${NVIDIA_FABRICMANAGER:-image}" = image ]; }

# check_fabric STAYS: before anything is loaded; STAYS is empty where this process ends after loading, and the daemon with its container.
check_fabric() {
    case ${NVIDIA_FABRICMANAGER:-image} in image | host) ;; *) die 2 "NVIDIA_FABRICMANAGER=$NVIDIA_FABRICMANAGER is none of image, host" ;; esac
    needs_fabric || return 0
    first=$(switches | awk 'NR == 1 { print $1 }')
    [ -x "$FABRIC_MANAGER" ] ||
        die 18 "NVSwitch at $first needs the Fabric Manager $DRIVER, which is not in this image: run it on the host and set NVIDIA_FABRICMANAGER=host"
    [ -n "$1" ] ||
        die 18 "NVSwitch at $first needs the Fabric Manager to keep running: use 'nvidia-driver init', which stays, or set NVIDIA_FABRICMANAGER=host"
}

# start_fabric: fails with the reason in REASON.
start_fabric() {
    needs_fabric || return 0
    mkdir -p "$RUN/nvidia-fabricmanager"
    settings=$IMAGE_ROOT/usr/local/nvidia/share/nvidia/nvswitch/fabricmanager.cfg
    set --
    [ ! -r "$settings" ] || set -- -c "$settings"
    # Descriptor 3 is the lock of init: a daemon that kept it would hold the lock after init has gone.
    timeout 300 "$FABRIC_MANAGER" "$@" 3>&- || { REASON="the Fabric Manager did not start: see /var/log/fabricmanager.log"; return 1; }
    say "started the Fabric Manager"
}

# keep_awake STAYS: persistence, by the daemon where its container stays, else by the driver's own mode, which outlives us.
keep_awake() {
    [ "${NVIDIA_PERSISTENCED:-}" = 1 ] || return 0
    if [ -n "$1" ] && command -v nvidia-persistenced > /dev/null; then
        [ -z "$(pid_in "$RUN/nvidia-persistenced/nvidia-persistenced.pid")" ] || return 0
        mkdir -p "$RUN/nvidia-persistenced"
        timeout 120 nvidia-persistenced --persistence-mode 3>&- || warn "nvidia-persistenced did not start: the GPU is initialised anew for each process"
    else
        timeout 120 nvidia-smi -pm 1 > /dev/null || warn "nvidia-smi could not switch persistence on: the GPU is initialised anew for each process"
    fi
}
