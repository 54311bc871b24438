# shellcheck shell=sh
# While the old kernel runs: images for the running and the next kernel, then what is no longer needed goes.

prefetch() {
    take_turn
    read_settings
    read_host
    if ! has_gpu; then
        # Nothing is pulled and nothing is held, and what an earlier life of this disk held is let go.
        need_settings
        ENGINE=none
        settle
        say "no NVIDIA GPU in this machine: nothing to fetch"
        return 0
    fi
    prepare
    note_kernel
    staged
    # The hold comes first: a reboot may be asked for while the pull runs.
    settle
    got=0
    fetch_index 120 || got=$?
    FETCHED=$got WHY_INDEX=$REASON
    [ "$got" = 0 ] || warn "$REASON"
    worst=0
    for kernel in "$KERNEL" $NEXT "$@"; do
        case " ${done_kernels:-} " in *" $kernel "*) continue ;; esac
        done_kernels="${done_kernels:-} $kernel"
        refresh "$kernel" || worst=$?
    done
    settle
    pay_owed
    [ "$worst" = 0 ] || exit "$worst"
    prune
}

# refresh KERNEL: asks the tags again, for the wanted driver and then for the fallbacks until one is here.
refresh() {
    rm -f "$SCRATCH/why"
    for driver in $DRIVER_VERSION $DRIVER_FALLBACK; do
        got=0
        resolve "$1" "$driver" 1800 || got=$?
        [ "$got" != 30 ] || REASON=$(why_missing "$1" "$driver")
        if [ "$got" = 0 ] && ! acceptable "$driver" "$VERSION"; then got=30; fi
        if [ "$got" = 0 ]; then serves || got=$?; fi
        if [ "$got" = 0 ]; then
            rm -f "$STATE/why/$(tag_text "$1")"
            say "for $1: $VERSION is here ($PIN, from ${TAG:-$REPOSITORY})"
            return 0
        fi
        [ -e "$SCRATCH/why" ] || printf '%s\n' "$got $REASON" > "$SCRATCH/why"
        say "for $1: $REASON"
        # Another driver is no answer to a registry that is silent.
        case $got in 17 | 30) ;; *) break ;; esac
    done
    first_line "$SCRATCH/why"
    keep "$STATE/why/$(tag_text "$1")" "${LINE#* }"
    return "${LINE%% *}"
}

# serves: whether the image of PIN has modules for the GPUs of this machine; the image itself says so, asked once. Else 17, REASON.
serves() {
    [ ! -e "$NOW/serves/${PIN#sha256:}" ] && image_of "$PIN" || return 0
    ran=0
    in_image "$IMAGE" 60 kind || ran=$?
    case $ran in
        0) keep "$NOW/serves/${PIN#sha256:}" "$REASON" ;;
        17) return 17 ;;
        # Images from before this command do not know it; an engine that cannot run them is told at the boot.
    esac
}

# prune: images of our repository that none of the three kernels would load; their pins, volumes and firmware with them.
prune() {
    [ -n "${NEXT+set}" ] || staged
    first_line "$STATE/previous-kernel"
    kept_kernels=" $KERNEL $LINE $NEXT " kept='' versions=" $(loaded_version) "
    for kernel in $kept_kernels; do
        for file in "$STATE/pins/$(tag_text "$kernel")"-* "$(good_file "$kernel")"; do
            first_line "$file"
            # shellcheck disable=SC2086
            set -- $LINE
            [ $# -lt 3 ] || kept="$kept $1" versions="$versions$3 "
        done
    done
    known_by='{{range .RepoDigests}}{{.}} {{end}}'
    # podman forgets the digest of an image whose tag has moved, not the tag.
    [ "$ENGINE" != podman ] || known_by="$known_by{{range .NamesHistory}}{{.}} {{end}}@{{.Digest}}"
    for image in $(limited 60 "$ENGINE" images --quiet --no-trunc --filter label=io.coreos-nvidia.kernel 2> /dev/null | sort -u); do
        digests=$(limited 60 "$ENGINE" image inspect --format "$known_by" "$image" 2> /dev/null) || continue
        mine='' wanted=''
        for digest in $digests; do
            case $digest in "$REPOSITORY"[@:]*) mine=1 ;; esac
            case " $kept " in *" ${digest#*@} "*) wanted=1 ;; esac
        done
        [ -n "$mine" ] && [ -z "$wanted" ] || continue
        name="$(label_of "$image" kernel)-$(label_of "$image" driver)"
        if limited 300 "$ENGINE" rmi --force "$image" > /dev/null 2> "$SCRATCH/rmi"; then
            say "removed driver:$name, which no kept kernel loads"
        else
            warn "driver:$name cannot be removed: $(tail -n 1 "$SCRATCH/rmi")"
        fi
    done
    for file in "$STATE"/pins/* "$STATE"/good/* "$STATE"/why/* "$STATE"/hold/*; do
        [ -f "$file" ] && [ "${file##*/}" != boot-default ] || continue
        used=''
        for kernel in $kept_kernels; do
            case ${file##*/} in "$(tag_text "$kernel")" | "$(tag_text "$kernel")"-[0-9]*) used=1 ;; esac
        done
        [ -n "$used" ] || rm -f "$file"
    done
    for directory in "$ROOT$VOLUMES"/[0-9]* "$STATE"/[0-9]*; do
        [ -d "$directory" ] || continue
        case $versions in *" ${directory##*/} "*) continue ;; esac
        rm -rf "$directory" && say "removed $directory, which no kept image needs"
    done
}
