# shellcheck shell=sh
# Whether the next reboot has to wait for an image, why, and until when; and how each OS is made to wait.

# decide: DECISION (go or hold), WHY, and for a hold SINCE and UNTIL in seconds (UNTIL empty: for ever). Asks no network.
decide() {
    DECISION=go WHY='' SINCE='' UNTIL='' NEXT=''
    if ! has_gpu; then WHY='no NVIDIA GPU in this machine'; return 0; fi
    staged
    if [ -z "$NEXT" ]; then WHY=$NEXT_WHY; return 0; fi
    if ! { read_pin "$(good_file "$KERNEL")" && image_of "$PIN"; } && ! here_for "$KERNEL"; then
        WHY="no driver image for the running kernel either: there is nothing to lose"
        return 0
    fi
    if here_for "$NEXT"; then
        WHY="the image for $NEXT is here ($VERSION)"
        rm -f "$STATE/hold/$(tag_text "$NEXT")"
        return 0
    fi
    SINCE=$(held_since)
    first_line "$STATE/why/$(tag_text "$NEXT")"
    WHY="the image for the next kernel $NEXT is missing: ${LINE:-it was not asked for yet}"
    DECISION=hold
    [ "$DRIVER_HOLD_DEADLINE" != never ] || return 0
    UNTIL=$((SINCE + $(seconds_of "$DRIVER_HOLD_DEADLINE")))
    [ "$(now)" -ge "$UNTIL" ] || return 0
    DECISION=go
    WHY="LETTING GO after $DRIVER_HOLD_DEADLINE WITHOUT A DRIVER: $WHY"
}

# held_since: when this kernel was first missed; a clock that was wrong then is not believed.
held_since() {
    file=$STATE/hold/$(tag_text "$NEXT")
    first_line "$file"
    case $LINE in '' | *[!0-9]*) LINE='' ;; esac
    if [ -z "$LINE" ] || [ "$LINE" -gt "$(now)" ]; then
        LINE=$(now)
        keep "$file" "$LINE"
    fi
    printf '%s\n' "$LINE"
}

decision_line() {
    case $DECISION in
        go) printf 'free: %s\n' "$WHY" ;;
        *)
            how_long='without end (DRIVER_HOLD_DEADLINE=never)'
            [ -z "$UNTIL" ] || how_long="at most until $(clock "$UNTIL")"
            printf 'held since %s, %s: %s\n' "$(clock "$SINCE")" "$how_long" "$WHY"
            ;;
    esac
}

may_reboot() {
    prepare
    decide
    decision_line
    [ "$DECISION" = go ]
}

# settle: makes the OS hold or let go, and keeps the line for whoever asks.
settle() {
    decide
    [ "$DECISION" = go ] || say "the next reboot is $(decision_line)"
    case $WHY in 'LETTING GO'*) say "$WHY" ;; esac
    keep "$NOW/decision" "$DECISION"
    keep "$NOW/decision-line" "$(decision_line)"
    case $OS in
        flatcar | container-linux) settle_locksmith ;;
        debian) settle_boot_loader ;;
    esac
}

# settle_locksmith: locksmithd starts only where the file is there, and reboots as its own windows say once it runs.
settle_locksmith() {
    case $(reboot_strategy) in
        etcd-lock) warn "locksmithd uses etcd-lock, which is not to be held (an old lock is given back only while it runs): this host may reboot without a driver"; return 0 ;;
        off) return 0 ;;
    esac
    if [ "$DECISION" = hold ]; then
        rm -f "$NOW/may-reboot"
        limited 60 systemctl stop --no-block locksmithd.service || warn "locksmithd cannot be stopped: it may reboot into $NEXT without a driver"
    elif [ "$(update_operation)" = UPDATE_STATUS_UPDATED_NEED_REBOOT ]; then
        keep "$NOW/may-reboot" "$WHY"
        limited 60 systemctl start --no-block locksmithd.service || warn "locksmithd cannot be started: reboot by hand"
    else
        # Before an update is there it must not run: it would reboot the moment one comes.
        rm -f "$NOW/may-reboot"
    fi
}

# reboot_strategy: as locksmithd would read it; later files win.
reboot_strategy() {
    for file in "$ROOT"/usr/share/flatcar/update.conf "$ROOT"/etc/flatcar/update.conf "$ROOT"/usr/share/coreos/update.conf "$ROOT"/etc/coreos/update.conf; do
        [ ! -r "$file" ] || sed -n 's/^REBOOT_STRATEGY=//p' "$file"
    done | tr -d "\"'" | tail -n 1 > "$SCRATCH/strategy"
    first_line "$SCRATCH/strategy"
    case $LINE in
        '' | best-effort)
            # "best-effort", and no word at all, mean etcd-lock where etcd runs (locksmith's README).
            for unit in etcd-member.service etcd2.service etcd.service; do
                ! limited 30 systemctl is-active --quiet "$unit" 2> /dev/null || LINE=etcd-lock
            done
            ;;
    esac
    printf '%s\n' "${LINE:-reboot}"
}

# settle_boot_loader: while the image is missing GRUB starts the running kernel.
settle_boot_loader() {
    marker=$STATE/hold/boot-default
    if [ "$DECISION" = go ]; then
        [ -e "$marker" ] || return 0
        if limited 60 grub-set-default 0; then
            rm -f "$marker"
            say "the newest kernel is the boot default again"
        else
            warn "grub-set-default failed: the boot default stays $KERNEL; set it by hand"
        fi
        return 0
    fi
    first_line "$marker"
    [ "$LINE" != "$KERNEL" ] || return 0
    entry=$(grub_entry "$KERNEL")
    if [ -z "$entry" ] || ! command -v grub-set-default > /dev/null; then
        warn "the boot loader cannot be told to stay with $KERNEL (no GRUB, or no entry for it): a reboot starts $NEXT without a driver"
        return 0
    fi
    grep -qs '^GRUB_DEFAULT=["'\'']*saved' "$ROOT"/etc/default/grub.d/*.cfg "$ROOT/etc/default/grub" ||
        { warn "GRUB_DEFAULT is not 'saved': a reboot starts $NEXT without a driver; set it in /etc/default/grub and run update-grub"; return 0; }
    if limited 60 grub-set-default "$entry"; then
        keep "$marker" "$KERNEL"
        say "a reboot starts $KERNEL until the image for $NEXT is here"
    else
        warn "grub-set-default failed: a reboot starts $NEXT without a driver"
    fi
}

# grub_entry KERNEL: "<submenu>><entry>" as grub.cfg names them, without the recovery entries.
grub_entry() {
    [ -r "$ROOT/boot/grub/grub.cfg" ] || return 0
    awk -v kernel="$1" '
        function id(  part) { if (match($0, /\$menuentry_id_option +\x27[^\x27]*\x27/)) { part = substr($0, RSTART, RLENGTH); sub(/^[^\x27]*\x27/, "", part); sub(/\x27$/, "", part); return part } return "" }
        /^[ \t]*submenu / { menu = id() }
        /^[ \t]*menuentry / { name = id(); if (index(name, "gnulinux-" kernel "-advanced-") == 1) { print (menu != "" ? menu ">" : "") name; exit } }
        /^}/ { menu = "" }' "$ROOT/boot/grub/grub.cfg"
}
