# shellcheck shell=sh
# What an administrator asks first; and whether this host can be served at all; and the way out.

status() {
    json=''
    case ${1:-} in
        '') ;;
        --json) json=1 ;;
        *) die 2 "status takes --json or nothing, got '$1'" ;;
    esac
    need_settings
    ENGINE=''
    # A status must work where nothing else does.
    (need_engine) 2> "$SCRATCH/engine-says" && need_engine || ENGINE=false
    mkdir -p "$NOW" "$STATE"
    version=$(loaded_version)
    first_line "$NOW/outcome"
    said=${LINE#* }
    decide
    line=$(decision_line)
    here=missing image_pin='' image_version=''
    for driver in $DRIVER_VERSION $DRIVER_FALLBACK; do
        read_pin "$(pin_file "$KERNEL" "$driver")" || continue
        image_pin=$PIN image_version=$VERSION image_tag=$TAG image_how=$HOW
        ! image_of "$PIN" || here=here
        break
    done
    first_line "$STATE/index/serial"
    serial=$LINE
    first_line "$STATE/index/read"
    read_at=$LINE
    if [ -n "$json" ]; then
        printf '{"schema": 1, "os": %s, "kernel": %s, "loaded": %s, "outcome": %s, "wanted": %s,\n "image": %s, "image_version": %s, "image_here": %s,\n' \
            "$(json_string "$OS")" "$(json_string "$KERNEL")" "$(or_null "$version")" "$(or_null "$said")" "$(json_string "$DRIVER_VERSION")" \
            "$(or_null "$image_pin")" "$(or_null "$image_version")" "$([ "$here" = here ] && echo true || echo false)"
        printf ' "next_kernel": %s, "reboot": %s, "why": %s, "held_since": %s, "held_until": %s, "index_serial": %s, "index_signed": %s}\n' \
            "$(or_null "${NEXT:-}")" "$(json_string "$DECISION")" "$(json_string "$WHY")" "${SINCE:-null}" "${UNTIL:-null}" "${serial:-null}" \
            "$([ -e "$STATE/index/signed" ] && echo true || echo false)"
        return 0
    fi
    printf 'kernel  %s (%s)\n' "$KERNEL" "$OS"
    if [ -z "$version" ]; then
        printf 'driver  not loaded%s\n' "${said:+: $said}"
    else
        # What was loaded in place of another says so, and why.
        case $said in "$version is loaded instead"*) ;; *) said="$version is loaded" ;; esac
        printf 'driver  %s\n' "$said"
    fi
    if [ -n "$image_pin" ]; then
        printf 'image   %s %s, %s (%s, %s)\n' "$image_version" "$here" "$image_pin" "$image_tag" "$([ "$image_how" = signed ] && echo 'from the signed index' || echo 'as the tag was')"
        # What the image itself said of this machine's GPUs when it was fetched.
        first_line "$NOW/serves/${image_pin#sha256:}"
        [ -z "$LINE" ] || printf 'kind    %s\n' "$LINE"
    else
        printf 'image   none is pinned for %s\n' "$DRIVER_VERSION"
    fi
    [ -z "${NEXT:-}" ] || printf 'next    %s: %s\n' "$NEXT" "$NEXT_WHY"
    printf 'reboot  %s\n' "$line"
    [ -z "$serial" ] || printf 'index   serial %s, read %s%s\n' "$serial" "$(clock "${read_at:-0}")" "$([ ! -e "$STATE/index/signed" ] || echo ', signature good')"
    [ "$ENGINE" != false ] || printf 'engine  %s\n' "$(tail -n 1 "$SCRATCH/engine-says" | sed 's/^nvidia-driver-host: //')"
}

or_null() { if [ -n "$1" ]; then json_string "$1"; else printf null; fi; }

# check: before an installation; says each thing that stands in the way.
check() {
    prepare
    case $OS in
        flatcar | container-linux)
            [ "$(reboot_strategy)" != etcd-lock ] ||
                die 2 "REBOOT_STRATEGY=etcd-lock: locksmithd gives an old lock back only while it runs, so it cannot be made to wait; set REBOOT_STRATEGY=reboot, or use kured with 'nvidia-driver-host may-reboot'"
            ;;
    esac
    say "this host can be served: $OS, kernel $KERNEL, $ENGINE, $REPOSITORY, driver $DRIVER_VERSION"
}

# uninstall: what the installation wrote down, and nothing else.
uninstall() {
    list=$ROOT/etc/nvidia-driver/installed
    [ -r "$list" ] || die 2 "$list is missing: nothing was installed from here"
    for unit in nvidia-driver-prefetch.timer nvidia-driver-prefetch.path nvidia-driver-fleetlock.socket nvidia-driver.service; do
        grep -q "/$unit\$" "$list" || continue
        # The driver stays loaded: workloads may use it until the reboot.
        case $unit in
            nvidia-driver.service) limited 60 systemctl disable "$unit" 2> /dev/null || : ;;
            *) limited 60 systemctl disable --now "$unit" 2> /dev/null || : ;;
        esac
    done
    marker=$STATE/hold/boot-default
    [ ! -e "$marker" ] || { limited 60 grub-set-default 0 && rm -f "$marker" || warn "the boot default cannot be set back: 'grub-set-default 0'"; }
    while IFS= read -r path; do
        case $path in
            /etc/nvidia-driver/driver.env | '') ;;
            'mask '*) limited 60 systemctl unmask "${path#mask }" 2> /dev/null || : ;;
            /*) rm -f "$ROOT$path" ;;
        esac
    done < "$list"
    rm -f "$list" "$STATE/current"
    limited 60 systemctl daemon-reload 2> /dev/null || :
    [ ! -e "$ROOT/etc/default/grub" ] || ! command -v update-grub > /dev/null || limited 120 update-grub > /dev/null 2>&1 || warn "update-grub failed: run it by hand"
    say "taken away; the driver stays loaded until the reboot. Kept: /etc/nvidia-driver/driver.env, $STATE, the images and $VOLUMES"
}
