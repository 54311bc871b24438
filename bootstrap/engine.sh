# shellcheck shell=bash
# The private container engine: containerd and dockerd of this checkout alone. Sourced by doit.sh.
#
# Data lies in build/engine; sockets and pid files under /run, since the path of a socket has at most 107 characters.
# containerd is started here too: left alone, dockerd would join one that already serves the machine, under the name of
# the machine's own Docker. No build step has a network, so there is no bridge and no change to the machine's firewall.

ENGINE_ID=$(printf %s "$ROOT" | sha256sum | cut -c 1-8)
ENGINE_RUN=/run/driver-engine-$ENGINE_ID
ENGINE_DATA=$ROOT/build/engine
ENGINE_ENV=$ROOT/build/engine.env
ENGINE_HOST=unix://$ENGINE_RUN/docker.sock
# By which dockerd reaches the registries that it pulls a vendor's image from.
NETWORK_VARIABLES='HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy SSL_CERT_FILE SSL_CERT_DIR'

engine_pid() { pid_of "$ENGINE_RUN/docker.pid" "$ENGINE_HOST"; }
containerd_pid() { pid_of "$ENGINE_RUN/containerd.pid" "$ENGINE_RUN/containerd.toml"; }

start_engine() {
    need_root "start a container engine"
    stop_engine
    say "starting a private container engine at $ENGINE_HOST"
    mkdir -p "$ENGINE_DATA"
    : >"$ENGINE_DATA/log"
    as_root mkdir -p -m 755 "$ENGINE_RUN"
    printf '%s\n' 'version = 2' "root = \"$ENGINE_DATA/containerd\"" "state = \"$ENGINE_RUN/containerd\"" \
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]' '[grpc]' "address = \"$ENGINE_RUN/containerd.sock\"" |
        as_root sh -c "cat >$ENGINE_RUN/containerd.toml"
    local within=()
    if ! has_cgroups; then
        say "no control groups are mounted here: the engine gets mounts of its own"
        within=(unshare --mount --propagation private sh -c "$MOUNT_CGROUPS" sh)
    fi
    spawn root "$ENGINE_RUN/containerd.pid" "$ENGINE_DATA/log" '' "${within[@]}" containerd --config "$ENGINE_RUN/containerd.toml"
    wait_for_engine 60 containerd_pid test -S "$ENGINE_RUN/containerd.sock"
    [ ${#within[@]} -eq 0 ] || within=(nsenter --mount --target "$(containerd_pid)")
    spawn root "$ENGINE_RUN/docker.pid" "$ENGINE_DATA/log" "$NETWORK_VARIABLES" "${within[@]}" \
        dockerd --host "$ENGINE_HOST" --containerd "$ENGINE_RUN/containerd.sock" --data-root "$ENGINE_DATA/data" \
        --exec-root "$ENGINE_RUN/exec" --pidfile "$ENGINE_RUN/dockerd.pid" --group "$(id -g)" \
        --bridge=none --iptables=false --ip6tables=false --ip-masq=false
    wait_for_engine 60 engine_pid "$PYTHON" -I -S "$ROOT/bootstrap/probe.py" "$ROOT" "$ENGINE_HOST"
    printf 'DOCKER_HOST=%s\n' "$ENGINE_HOST" >"$ENGINE_ENV.new" && mv "$ENGINE_ENV.new" "$ENGINE_ENV"
}

# wait_for_engine SECONDS PID_FUNCTION COMMAND...: until COMMAND is true; a daemon that has ended is not waited for
wait_for_engine() {
    local tenths=$(($1 * 10)) pid=$2
    shift 2
    wait_until 30 "$pid" >/dev/null || engine_failed
    until "$@" 2>/dev/null; do
        tenths=$((tenths - 1))
        if [ "$tenths" -le 0 ] || ! "$pid" >/dev/null; then engine_failed; fi
        sleep 0.1
    done
}

# A bare sandbox or container may have none, and dockerd ends without ("Devices cgroup isn't mounted").
has_cgroups() {
    [ "$(stat --file-system --format=%T /sys/fs/cgroup 2>/dev/null)" = cgroup2fs ] ||
        grep -qE ' - cgroup \S+ \S*\bdevices\b' /proc/self/mountinfo
}

# Seen by the engine alone, gone with it.
# shellcheck disable=SC2016 # the inner shell's words
MOUNT_CGROUPS='
if grep -q "^devices[[:space:]]" /proc/cgroups; then
    mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
    for name in $(awk "!/^#/ && \$4 == 1 { print \$1 }" /proc/cgroups); do
        mkdir "/sys/fs/cgroup/$name"
        mount -t cgroup -o "$name" cgroup "/sys/fs/cgroup/$name" || rmdir "/sys/fs/cgroup/$name"
    done
else
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
exec "$@"
'

engine_failed() {
    # What a daemon says before it ends, without what it says of its connections.
    grep -v -e 'level=info' -e 'Unable to find' "$ENGINE_DATA/log" | tail -n 12 >&2 || true
    stop_engine
    die "the container engine did not start: see build/engine/log, or set DOCKER_HOST to one that runs"
}

# stop_engine: end the engine's processes, undo what they mounted, leave the data
stop_engine() {
    local pid mounted
    if pid=$(engine_pid); then end "$pid" 30; fi
    if pid=$(containerd_pid); then end "$pid" 10; fi
    # Daemons whose pid files are gone: they would hold the data that the next ones need.
    for pid in $(processes_with dockerd "$ENGINE_HOST") $(processes_with containerd "$ENGINE_RUN/containerd.toml"); do end "$pid" 10; done
    for pid in $(processes_with containerd-shim "$ENGINE_RUN/containerd.sock"); do
        # The first process of a container takes all others of it along.
        # shellcheck disable=SC2046 # pids
        signal KILL $(cat "/proc/$pid/task/$pid/children" 2>/dev/null) "$pid"
    done
    # What was mounted last lies on top.
    engine_mounts | tac | while IFS= read -r mounted; do
        as_root umount "$mounted" 2>/dev/null || as_root umount --lazy "$mounted"
    done
    rm -f "$ENGINE_ENV"
    if [ -d "$ENGINE_RUN" ]; then as_root rm -rf --one-file-system "$ENGINE_RUN"; fi
}

# processes_with NAME WORD: pids of the programs NAME or NAME-… of which WORD is an argument. Shims, one a container, outlive containerd.
processes_with() {
    local process words
    for process in /proc/[0-9]*; do
        words=$(tr '\0' '\n' 2>/dev/null <"$process/cmdline") || continue
        case ${words%%$'\n'*} in
            "$1" | "$1"-* | */"$1" | */"$1"-*) ! grep -qxF -e "$2" <<<"$words" || printf '%s\n' "${process#/proc/}" ;;
        esac
    done
}

# engine_mounts: places below the engine's folders where something is mounted, in the order it was
engine_mounts() {
    local place
    while read -r _ _ _ _ place _; do
        place=$(printf %b "$place") # a space is \040 there
        case $place in "$ENGINE_DATA"/* | "$ENGINE_RUN"/*) printf '%s\n' "$place" ;; esac
    done </proc/self/mountinfo
}
