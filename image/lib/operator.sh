# shellcheck shell=sh
# What the GPU Operator expects of a driver container: the driver root, files that say what is ready, the RDMA side container.

DRIVER_ROOT=$RUN/nvidia/driver
VALIDATIONS=$RUN/nvidia/validations

# take_lock: descriptor 3 holds it for the life of this process; the file names us for whoever finds it taken.
take_lock() {
    mkdir -p "$RUN/nvidia"
    lock=$RUN/nvidia/nvidia-driver.pid
    first_line "$lock"
    exec 3>> "$lock"
    taken=0
    flock -n 3 2> /dev/null || taken=$?
    if [ "$taken" = 127 ]; then
        # No flock program: the pid decides, if it lives and is one of us.
        taken=0
        if [ -n "$LINE" ] && [ "$LINE" != $$ ] && grep -q nvidia-driver "$PROC/$LINE/cmdline" 2> /dev/null; then
            taken=1
        fi
    fi
    [ "$taken" = 0 ] || die 21 "another nvidia-driver init runs (pid ${LINE:-unknown}, $lock): stop that container first"
    printf '%s\n' $$ > "$lock"
}

daemons_are() {
    mkdir -p "$VALIDATIONS"
    printf '%s\n' "$1" > "$VALIDATIONS/.driver-daemons-status"
}

mount_root() {
    unmount_root
    mkdir -p "$DRIVER_ROOT"
    # Without this the host's /sys would be mounted a second time below the driver root.
    mount --make-runbindable "$SYSFS" && mount --make-private "$SYSFS" || warn "$SYSFS is mounted again below $DRIVER_ROOT"
    mount --rbind "${IMAGE_ROOT:-/}" "$DRIVER_ROOT"
}

unmount_root() {
    ! is_mounted "$DRIVER_ROOT" || umount -l "$DRIVER_ROOT" || warn "cannot unmount $DRIVER_ROOT"
}

# pause SECONDS: a signal ends it at once. The sleeper holds neither our lock nor our output.
pause() {
    sleep "$1" 3>&- > /dev/null 2>&1 &
    wait $! || :
}

# wake: ends the sleeper. $! and no variable of ours: the signal may come before an assignment.
wake() { [ -z "${!:-}" ] || kill $! 2> /dev/null || :; }

# A minute, not a day: a signal that meets the sleeper between fork and exec is lost, and it outlives us by so much.
stay() { while :; do pause 60; done; }

init() {
    trap 'stop_init' TERM INT HUP QUIT
    need_image
    take_lock
    daemons_are NotReady
    bring_up stays
    mount_root || { take_down || :; die 1 "cannot mount the driver root at $DRIVER_ROOT: run privileged, with $RUN/nvidia shared both ways"; }
    printf '%s' "${DRIVER_CONFIG_DIGEST:-}" > "$RUN/nvidia/nvidia-driver.state"
    daemons_are Ready
    say "staying; SIGTERM unloads the driver and unmounts $DRIVER_ROOT"
    stay
}

stop_init() {
    trap '' TERM INT HUP QUIT
    wake
    rm -f "$VALIDATIONS/.driver-ctr-ready"
    daemons_are NotReady
    # Where something uses the driver, its libraries stay mounted as well.
    take_down || exit $?
    # Before the mount goes: with it goes its copy of this very directory, and where that is shared with the host, as the operator
    # has it, the directory here as well (seen with podman and a volume with rshared): nothing could be removed in it any more.
    rm -f "$RUN/nvidia/nvidia-driver.state" "$RUN/nvidia/nvidia-driver.pid"
    unmount_root
    exit 0
}

need_peermem() {
    need_image
    case " $MODULES " in *' nvidia-peermem '*) ;; *) die 19 "this image has no nvidia-peermem: GPUDirect RDMA needs dma-buf (open modules), or an image built with it" ;; esac
}

# reload_nvidia_peermem: waits for the InfiniBand driver, twenty minutes at most (the operator's own limit), loads the module, stays.
reload_nvidia_peermem() {
    trap 'wake; exit 0' TERM INT HUP QUIT
    need_peermem
    check_kernel
    waited=0
    until [ -e "$VALIDATIONS/.driver-ctr-ready" ] && { [ -e "$RUN/mellanox/drivers/.driver-ready" ] || { [ "${USE_HOST_MOFED:-}" = true ] && is_loaded mlx5_core; }; }; do
        [ "$waited" -lt "${PEERMEM_WAIT:-1200}" ] ||
            die 19 "nvidia-peermem: no InfiniBand driver after $waited s ($RUN/mellanox/drivers/.driver-ready, or mlx5_core with USE_HOST_MOFED=true)"
        [ $((waited % 60)) != 0 ] || say "nvidia-peermem: waiting for the NVIDIA and the InfiniBand driver ($waited s)"
        pause 10
        waited=$((waited + 10))
    done
    if ! is_loaded nvidia-peermem; then
        choose_kind
        kind=$(loaded_kind)
        [ -z "$kind" ] || ! has_kind "$kind" || KIND=$kind
        insert nvidia-peermem || die 19 "$REASON; this kernel's InfiniBand offers no peer memory: use dma-buf, or load MOFED before"
    fi
    say "nvidia-peermem is loaded; staying"
    stay
}

# probe_nvidia_peermem: without an InfiniBand driver nothing can be wrong yet, and failing would only restart the container.
probe_nvidia_peermem() {
    need_peermem
    is_loaded mlx5_core || { say "nvidia-peermem: no InfiniBand driver yet, nothing to probe"; return 0; }
    is_loaded nvidia-peermem || die 1 "nvidia-peermem is not loaded"
}
