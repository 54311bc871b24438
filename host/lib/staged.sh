# shellcheck shell=sh
# Which kernel the next reboot would start, before it does.

# staged: NEXT, empty where it is the running one or none is staged; NEXT_WHY says how that is known. NEXT_OS_TAG where the release is known.
staged() {
    NEXT='' NEXT_OS_TAG='' NEXT_WHY='no other kernel is staged'
    case $OS in
        fedora-coreos) staged_ostree ;;
        flatcar | container-linux) staged_partition ;;
        *) staged_debian ;;
    esac
    [ "$NEXT" != "$KERNEL" ] || NEXT='' NEXT_WHY='what is staged has the running kernel'
}

# staged_ostree: the staged deployment, else the first where that is not the booted one.
staged_ostree() {
    command -v jq > /dev/null || { NEXT_WHY='jq is not installed: the staged deployment cannot be read'; return 0; }
    limited 60 rpm-ostree status --json > "$SCRATCH/ostree" 2> /dev/null || { NEXT_WHY='rpm-ostree does not answer'; return 0; }
    deployment=$(jq -r '([.deployments[] | select(.staged)][0] // (.deployments[0] | select(.booted | not))) // empty
        | "\(.osname)/deploy/\(.checksum).\(.serial) \(.version // "")"' < "$SCRATCH/ostree" 2> /dev/null) || deployment=''
    [ -n "$deployment" ] || return 0
    directory=$ROOT/ostree/deploy/${deployment%% *}
    for image in "$directory"/usr/lib/modules/*/vmlinuz; do
        [ -f "$image" ] || continue
        NEXT=${image%/vmlinuz} NEXT=${NEXT##*/}
        NEXT_WHY="deployment ${deployment#* } is staged"
    done
    tag_of_release "$directory/usr/lib/os-release"
    [ -n "$NEXT" ] || NEXT_WHY="deployment ${deployment#* } is staged, and its kernel is not to be seen below $directory"
}

tag_of_release() {
    [ -r "$1" ] || return 0
    os_release ID "$1"
    NEXT_OS_TAG=$FOUND
    os_release VERSION_ID "$1"
    NEXT_OS_TAG=$NEXT_OS_TAG$FOUND
}

# update_engine: the value of CURRENT_OP; NEW_VERSION is of no use, since it is 0.0.0 after a restart of the engine.
update_operation() { limited 60 update_engine_client -status 2> /dev/null | sed -n 's/^CURRENT_OP=//p'; }

# staged_partition: the other /usr, once an update is written there.
staged_partition() {
    [ "$(update_operation)" = UPDATE_STATUS_UPDATED_NEED_REBOOT ] || return 0
    case $OS in flatcar) kind=flatcar-usr ;; *) kind=coreos-usr ;; esac
    current=$(limited 30 rootdev -s /usr 2> /dev/null) || current=''
    other=$(limited 30 cgpt find -t "$kind" 2> /dev/null | grep -vxF "$current" | head -n 1) || other=''
    NEXT_WHY='an update needs a reboot, and the partition it lies on is not to be found'
    [ -n "$current" ] && [ -n "$other" ] || return 0
    place=$NOW/next-usr
    mkdir -p "$place"
    if ! limited 60 mount -o ro -t btrfs -o rescue=nologreplay "$other" "$place" 2> "$SCRATCH/mount" && ! limited 60 mount -o ro "$other" "$place" 2>> "$SCRATCH/mount"; then
        # btrfs refuses the twin of a mounted image: the same release, the same kernel.
        ! grep -qi 'exists' "$SCRATCH/mount" || NEXT=$KERNEL
        NEXT_WHY="an update needs a reboot, and $other cannot be mounted: $(tail -n 1 "$SCRATCH/mount")"
        return 0
    fi
    for directory in "$place"/lib/modules/*; do
        [ ! -d "$directory" ] || NEXT=${directory##*/}
    done
    tag_of_release "$place/lib/os-release"
    NEXT_WHY="an update to $NEXT_OS_TAG needs a reboot"
    limited 60 umount "$place" || warn "cannot unmount $place"
}

# staged_debian: the newest of /boot, which a boot loader takes where nobody told it otherwise.
staged_debian() {
    newest=$(for file in "$ROOT"/boot/vmlinuz-*; do [ ! -f "$file" ] || printf '%s\n' "${file##*/vmlinuz-}"; done | sort -V | tail -n 1)
    [ -n "$newest" ] || return 0
    NEXT=$newest NEXT_OS_TAG=$OS_TAG NEXT_WHY="$newest is the newest kernel in /boot"
}
