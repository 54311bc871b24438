# shellcheck shell=sh
# At boot: have the image, load it, offer the driver to containers.

VOLUMES=/var/lib/nvidia-docker/volumes/nvidia_driver

prepare() {
    need_settings
    check_rivals
    need_engine
}

# check_rivals: two programs that each bring a driver break each other's.
check_rivals() {
    for file in "$ROOT"/usr/lib/extension-release.d/extension-release.flatcar-nvidia-drivers*; do
        [ ! -e "$file" ] || die 2 "the system extension ${file##*/extension-release.} is merged and brings its own driver: take its line out of /etc/flatcar/enabled-sysext.conf, reboot, then use this"
    done
    case $OS in flatcar | container-linux) ;; *) return 0 ;; esac
    ! limited 30 systemctl is-active --quiet nvidia.service 2> /dev/null ||
        die 2 "Flatcar's own nvidia.service runs and brings its own driver: 'systemctl mask --now nvidia.service', reboot"
}

# note_kernel: the kernel before this one keeps its image, for the way back.
note_kernel() {
    first_line "$STATE/kernel"
    [ "$LINE" = "$KERNEL" ] || { [ -z "$LINE" ] || keep "$STATE/previous-kernel" "$LINE"; keep "$STATE/kernel" "$KERNEL"; }
}

# outcome STATUS LINE: the outcome of a boot, kept for 'status'.
outcome() { keep "$NOW/outcome" "$1 $2"; }

boot() {
    take_turn
    need_settings
    note_kernel
    if ! has_gpu; then
        outcome 10 "no NVIDIA GPU in this machine: nothing to load"
        die 10 "no NVIDIA GPU in this machine: nothing to load"
    fi
    check_rivals
    choose_engine
    load_here
    need_engine
    bring_up
}

# load_here: what is pinned and here is loaded with nothing else asked of the engine, whose every start takes a second or more of a
# boot. Comes back where there is no pin, or the engine runs nothing: no image, no daemon yet, a torn store; the long way tells which.
load_here() {
    read_pin "$(pin_file "$KERNEL" "$DRIVER_VERSION")" || return 0
    IMAGE=$REPOSITORY@$PIN failed=0 QUICK=1
    run_image || failed=$?
    QUICK=''
    ! is_engines "$failed" || return 0
    conclude
    exit 0
}

# bring_up: the wanted driver, else the fallbacks in their order; the first that is to be had is loaded.
bring_up() {
    until=$(($(now) + DRIVER_BOOT_DEADLINE))
    first_status='' first_reason=''
    for driver in $DRIVER_VERSION $DRIVER_FALLBACK; do
        got=0
        obtain "$KERNEL" "$driver" "$until" || got=$?
        if [ "$got" = 30 ] && ! read_pin "$(pin_file "$KERNEL" "$driver")"; then
            # Without a key the index is only asked for the reason.
            [ -n "$DRIVER_KEY" ] || fetch_index 60 || :
            REASON=$(why_missing "$KERNEL" "$driver")
        fi
        if [ "$got" = 0 ] && ! acceptable "$driver" "$VERSION"; then got=30; fi
        if [ "$got" = 0 ]; then
            [ "$driver" = "$DRIVER_VERSION" ] || say "taking fallback $VERSION"
            load_pinned
            return 0
        fi
        say "$REASON"
        [ -n "$first_status" ] || first_status=$got first_reason=$REASON
    done
    if [ "$first_status" = 31 ] && read_pin "$(good_file "$KERNEL")" && image_of "$PIN"; then
        # A setting that changed while no registry answered: the host keeps the driver it had.
        say "loading what worked last on $KERNEL: $VERSION ($PIN)"
        if load_image; then
            outcome 0 "$VERSION is loaded instead of $DRIVER_VERSION: $first_reason"
            return 0
        fi
    fi
    outcome "$first_status" "$first_reason"
    exit "$first_status"
}

# load_pinned: PIN and IMAGE; where that fails, what worked before for this kernel.
load_pinned() {
    failed=0
    load_image || failed=$?
    conclude
}

# conclude: after PIN was loaded, or ended with FAILED.
conclude() {
    case $failed in
        0) return 0 ;;
        # What another image of the same kernel cannot change: no GPU, another driver loaded, busy, taken, lockdown, fabric.
        10 | 12 | 13 | 14 | 15 | 18 | 21) outcome "$failed" "$REASON"; exit "$failed" ;;
    esac
    why="$VERSION ($PIN) did not load: $REASON"
    bad=$PIN
    say "$why"
    if read_pin "$(good_file "$KERNEL")" && [ "$PIN" != "$bad" ] && image_of "$PIN"; then
        say "loading what worked last on $KERNEL: $VERSION ($PIN)"
        if load_image; then
            outcome 0 "$VERSION is loaded instead: $why"
            return 0
        fi
    fi
    outcome "$failed" "$why"
    exit "$failed"
}

# load_image: IMAGE of PIN. An engine that cannot run it (a store that a power cut has torn) gets it anew, once.
load_image() {
    ran=0
    run_image || ran=$?
    is_engines "$ran" || return "$ran"
    say "$ENGINE cannot run $PIN ($REASON): removing it and pulling it again"
    need_engine
    limited 120 "$ENGINE" rmi -f "$IMAGE" > /dev/null 2>&1 || :
    pull "$REPOSITORY@$PIN" "$(pull_time "$((${until:-0} - $(now)))")" || return $?
    image_of "$PIN" || return 34
    ran=0
    run_image || ran=$?
    ! is_engines "$ran" || return 34
    return "$ran"
}

# run_image: volume, modules and CDI specification out of IMAGE, in one container.
run_image() {
    if has_switch && [ "${NVIDIA_FABRICMANAGER:-image}" = image ]; then
        run_with_fabric || return $?
    else
        in_image "$IMAGE" 1020 volume load cdi || return $?
        label_volume
    fi
    keep "$(good_file "$KERNEL")" "$PIN $HOW $VERSION $TAG"
    keep "$STATE/last-good" "$VERSION $PIN"
    offer
    outcome 0 "$VERSION is loaded"
    say "driver $VERSION is loaded on $KERNEL ($PIN)"
}

# run_with_fabric: the Fabric Manager must outlive the container that loads: where the volume holds it, it runs on the host, after the
# modules and before the specification, which has its socket.
run_with_fabric() {
    fabric='' ran=0
    in_image "$IMAGE" 600 volume || ran=$?
    ! is_engines "$ran" || return "$ran"
    [ "$ran" = 0 ] || warn "the volume nvidia_driver_$VERSION is not filled: $REASON"
    label_volume
    if [ -x "$ROOT$VOLUMES/$VERSION/host-bin/nv-fabricmanager" ]; then fabric=1 NVIDIA_FABRICMANAGER=host; fi
    ran=0
    in_image "$IMAGE" 300 load || ran=$?
    [ -z "$fabric" ] || NVIDIA_FABRICMANAGER=image
    [ "$ran" = 0 ] || return "$ran"
    [ -z "$fabric" ] || start_fabric || return $?
    in_image "$IMAGE" 120 cdi || warn "no CDI specification: $REASON"
}

no_fabric() { REASON="the driver is loaded, and NVSwitch needs the Fabric Manager, which did not start: $1" && say "$REASON"; }

# start_fabric: the Fabric Manager of VERSION as a service of its own, with topologies and C library of the volume; 18 and REASON.
start_fabric() {
    ! limited 30 systemctl is-active --quiet nvidia-fabricmanager.service 2> /dev/null || { say "the Fabric Manager runs already"; return 0; }
    share=$VOLUMES/$VERSION/share/nvidia/nvswitch
    mkdir -p "$ROOT/run/nvidia-fabricmanager" "$NOW"
    sed -e "s|^TOPOLOGY_FILE_PATH=.*|TOPOLOGY_FILE_PATH=$share|" -e 's|^DAEMONIZE=.*|DAEMONIZE=0|' "$ROOT$share/fabricmanager.cfg" > "$NOW/fabricmanager.cfg" ||
        { no_fabric "its settings $share/fabricmanager.cfg cannot be read"; return 18; }
    limited 120 systemd-run --quiet --collect --unit=nvidia-fabricmanager --property=Restart=on-failure --property=RestartSec=10 \
        "$VOLUMES/$VERSION/host-bin/nv-fabricmanager" -c "${NOW#"$ROOT"}/fabricmanager.cfg" > "$SCRATCH/fabric" 2>&1 ||
        { no_fabric "$(tail -n 1 "$SCRATCH/fabric")"; return 18; }
    say "started the Fabric Manager of $VERSION (nvidia-fabricmanager.service)"
}

# label_volume: containers may read what has this type; the volume's files come from a container without one.
label_volume() {
    [ -d "$ROOT$VOLUMES/$VERSION" ] && command -v selinuxenabled > /dev/null && selinuxenabled || return 0
    limited 300 chcon -R -t container_ro_file_t "$ROOT$VOLUMES/$VERSION" || warn "the volume's SELinux type cannot be set: see docs/host.md"
}

# offer: nvidia-smi for the host.
offer() {
    [ -d "$ROOT$VOLUMES/$VERSION/host-bin" ] || return 0
    ln -sfn "$VOLUMES/$VERSION" "$STATE/current.new" && mv -fT "$STATE/current.new" "$STATE/current" 2> /dev/null ||
        ln -sfn "$VOLUMES/$VERSION" "$STATE/current"
    rm -f "$STATE/current.new"
}

# unload: by the image that loaded it, else by any image for this kernel.
unload() {
    take_turn
    prepare
    [ -n "$(loaded_version)" ] || { say "no NVIDIA module is loaded"; rm -f "$ROOT/run/cdi/nvidia.yaml"; return 0; }
    read_pin "$(good_file "$KERNEL")" && image_of "$PIN" || here_for "$KERNEL" ||
        die 30 "no ${DRIVER_KEY:+signed }image for $KERNEL is here to unload the driver with: 'nvidia-driver-host prefetch' may bring one, 'rmmod nvidia-drm nvidia-modeset nvidia-uvm nvidia' needs none"
    ran=0
    in_image "$IMAGE" 300 unload || ran=$?
    [ "$ran" = 0 ] || { outcome 0 "still loaded: $REASON"; exit "$ran"; }
    rm -f "$ROOT/run/cdi/nvidia.yaml"
    outcome 3 "unloaded"
}

# switch: nothing is taken out before what replaces it is here.
switch() {
    take_turn
    prepare
    # Nothing of the old driver goes before the new one is here.
    got=0
    FETCHED=''
    resolve "$KERNEL" "$DRIVER_VERSION" 1800 || got=$?
    if [ "$got" != 0 ]; then
        [ "$got" != 30 ] || { [ -n "$DRIVER_KEY" ] || fetch_index 60 || :; REASON=$(why_missing "$KERNEL" "$DRIVER_VERSION"); }
        die "$got" "$REASON"
    fi
    present=$(loaded_version)
    wanted=$PIN
    first_line "$STATE/last-good"
    if [ -n "$present" ] && [ "$LINE" = "$present $wanted" ]; then
        say "driver $present is loaded already ($wanted)"
        return 0
    fi
    if [ -n "$present" ]; then
        # Where what loaded it is gone, or was never signed and DRIVER_KEY is set since: the new one's program unloads any version.
        read_pin "$(good_file "$KERNEL")" && image_of "$PIN" || image_of "$wanted" || die 30 "the image for $DRIVER_VERSION is gone again"
        ran=0
        in_image "$IMAGE" 300 unload || ran=$?
        [ "$ran" = 0 ] || die "$ran" "driver $present stays: $REASON; the new one is taken at the next boot"
        rm -f "$ROOT/run/cdi/nvidia.yaml"
    fi
    until=$(($(now) + 600))
    read_pin "$(pin_file "$KERNEL" "$DRIVER_VERSION")" && image_of "$PIN" || die 30 "the image for $DRIVER_VERSION is gone again"
    load_pinned
}
