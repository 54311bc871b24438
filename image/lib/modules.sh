# shellcheck shell=sh
# Kernel modules: what is loaded, what they need of the host's kernel, their parameters, in and out.

# Each before what builds on it; removal goes backwards.
ALL_MODULES='nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem'

# spell NAME: SPELLED, as sysfs spells it. No program is started for it: it is asked dozens of times while a host boots.
spell() {
    SPELLED=$1
    while :; do
        case $SPELLED in *-*) SPELLED=${SPELLED%%-*}_${SPELLED#*-} ;; *) return 0 ;; esac
    done
}

kernel_name() { spell "$1" && printf '%s\n' "$SPELLED"; }

is_loaded() { spell "$1" && [ -d "$SYSFS/module/$SPELLED" ]; }

loaded_modules() { for module in $ALL_MODULES; do ! is_loaded "$module" || printf '%s\n' "$module"; done; }

backwards() { awk '{ line[NR] = $0 } END { for (i = NR; i; i--) print line[i] }'; }

# loaded_version: the version of the nvidia module in the kernel, empty where none is.
loaded_version() {
    is_loaded nvidia || return 0
    first_line "$SYSFS/module/nvidia/version"
    [ -n "$LINE" ] || LINE=$(awk '/^NVRM/ { for (i = 1; i <= NF; i++) if ($i ~ /^[0-9]+\.[0-9.]+$/) { print $i; exit } }' "$PROC/driver/nvidia/version" 2> /dev/null) || :
    printf '%s\n' "${LINE:-unknown}"
}

loaded_kind() {
    first_line "$PROC/driver/nvidia/version"
    case $LINE in '') ;; *Open*) echo open ;; *) echo proprietary ;; esac
}

# wanted_modules: those of the image, or those that were asked for; nvidia-peermem only where RDMA is.
wanted_modules() {
    for module in ${NVIDIA_DRIVER_MODULES:-$MODULES}; do
        if [ "$module" = nvidia-peermem ] && [ -z "${NVIDIA_DRIVER_MODULES:-}" ] && [ "${GPU_DIRECT_RDMA_ENABLED:-}" != true ]; then
            continue
        fi
        printf '%s\n' "$module"
    done
}

# module_parameters NAME: from lines "options NAME …" of the settings, then the GPU Operator's /drivers/NAME.conf.
module_parameters() {
    settings=${NVIDIA_MODULES_CONF:-$HOST_ROOT/etc/nvidia-driver/modules.conf}
    name=$(kernel_name "$1")
    if [ -r "$settings" ]; then
        sed -e ':join' -e '/\\$/{N;s/\\\n/ /;b join' -e '}' "$settings" |
            awk -v name="$name" '/^[ \t]*#/ { next } $1 == "options" { m = $2; gsub(/-/, "_", m); if (m == name) { $1 = $2 = ""; print } }'
    fi
    if [ -r "$IMAGE_ROOT/drivers/$1.conf" ]; then
        grep -v '^[[:space:]]*#' "$IMAGE_ROOT/drivers/$1.conf" || :
    fi
}

# host_modules: ROOT such that ROOT/lib/modules/<kernel> is the host's own tree; fails where none is to be seen.
# The GPU Operator mounts no such tree, but shares the host's PID namespace, whose first process has the host's root.
host_modules() {
    for ROOT in "$HOST_ROOT" "$IMAGE_ROOT/host" "$PROC/1/root"; do
        [ ! -d "$ROOT/lib/modules/$KERNEL" ] || return 0
    done
    return 1
}

# host_module NAME: loads a module of the host's kernel, unless it is there or built in; fails where it cannot.
host_module() {
    ! is_loaded "$1" || return 0
    host_modules || return 1
    pattern=$(printf '%s\n' "$1" | sed 's/[-_]/[-_]/g')
    ! grep -q "/$pattern\.ko" "$ROOT/lib/modules/$KERNEL/modules.builtin" 2> /dev/null || return 0
    modprobe -d "${ROOT:-/}" -S "$KERNEL" "$1" 2> /dev/null
}

# prerequisites MODULE…: what the modules say they depend on must come; what only management software likes to have may be absent.
# One modprobe for all of that, and one modinfo: the start of each takes a tenth of a second of a boot on a slow host.
prerequisites() {
    liked=''
    for module in i2c_core ipmi_msghandler ipmi_devintf; do is_loaded "$module" || liked="$liked $module"; done
    # shellcheck disable=SC2086
    [ -z "$liked" ] || ! host_modules || modprobe -a -d "${ROOT:-/}" -S "$KERNEL" $liked 2> /dev/null || :
    wanting=$*
    set --
    for module in $wanting; do
        module_file "$module"
        set -- "$@" "$MODULE_FILE"
    done
    depends=$(modinfo -F depends "$@" | tr , ' ') || depends=''
    for needed in $depends; do
        case $needed in nvidia | nvidia[-_]*) continue ;; esac
        host_module "$needed" && continue
        # Only now it counts whose it is.
        for module in $wanting; do
            module_file "$module"
            case ",$(modinfo -F depends "$MODULE_FILE")," in *",$needed,"*) break ;; esac
        done
        if host_modules; then
            die 20 "$module needs the host kernel's $needed, which modprobe does not load from $ROOT/lib/modules/$KERNEL: install the host's package that has it"
        fi
        die 20 "$module needs the host kernel's $needed, which is not loaded: load it on the host, or mount the host's /lib/modules read-only at /host/lib/modules"
    done
}

# insert NAME: on failure REFUSED holds the exit status and REASON the line.
insert() {
    module_file "$1"
    # Split into words on purpose; insmod joins them with spaces again, so a quoted value survives.
    set -f
    # shellcheck disable=SC2046
    set -- "$1" $(module_parameters "$1")
    set +f
    module=$1
    shift
    ! said=$(insmod "$MODULE_FILE" "$@" 2>&1) || return 0
    said=$(printf '%s' "$said" | tr '\n' ' ')
    seen=$(dmesg 2> /dev/null | grep -E "NVRM|$(kernel_name "$module"):" | tail -n 1 | sed 's/^<[0-9]*>//; s/^\[ *[0-9.]*\] *//') || seen=''
    REASON="$module.ko ($KIND) was refused: ${said:-no reason given}${seen:+ (kernel: $seen)}"
    case $said in
        *'No such device'*)
            if [ -z "$(gpus)" ]; then
                REFUSED=10
            else
                REFUSED=17
                REASON="$REASON; it serves none of the GPUs $(gpus | awk '{ printf "%s%s", sep, $2; sep = ", " }'); try another KERNEL_MODULE_TYPE (image holds: $KINDS) or an older branch"
            fi
            ;;
        *[Kk]ey*' rejected'* | *'Required key'*) REFUSED=15 REASON="$REASON; its signing key is not enrolled (mokutil --import)" ;;
        *'Operation not permitted'* | *'Permission denied'*) REFUSED=16 REASON="$REASON; the container needs CAP_SYS_MODULE, the kernel no lockdown" ;;
        *'Invalid module format'* | *'Exec format'*) REFUSED=11 REASON="$REASON; the module does not fit kernel $KERNEL of this host" ;;
        *) REFUSED=16 ;;
    esac
    return 1
}

# remove_added: takes back what this run has loaded, the last first.
ADDED=''
remove_added() {
    for module in $ADDED; do
        ! is_loaded "$module" || rmmod "$module" || warn "$module could not be removed again; 'nvidia-driver unload' later, or reboot"
    done
    ADDED=''
}

# insert_all MODULE…: all or nothing.
insert_all() {
    for wanted in "$@"; do
        ! is_loaded "$wanted" || continue
        # Noted before: a signal may come between the insertion and the next line.
        back=$ADDED ADDED="$wanted $ADDED"
        insert "$wanted" || {
            remove_added
            die "$REFUSED" "$REASON${back:+; removed again: ${back% }}"
        }
    done
}

# why_busy: BUSY says what uses the loaded modules; empty where they can be removed. Our own daemons do not count.
why_busy() {
    BUSY=''
    is_loaded nvidia || return 0
    if [ ! -e "$SYSFS/module/nvidia/refcnt" ]; then
        BUSY='this kernel cannot unload modules (CONFIG_MODULE_UNLOAD is off); reboot instead'
        return 0
    fi
    ours=" $(our_daemons | tr '\n' ' ') "
    processes=$(holders | while read -r pid comm; do
        case $ours in *" $pid "*) ;; *) printf ' %s (%s)' "$pid" "$comm" ;; esac
    done)
    [ -z "$processes" ] || BUSY="processes with an NVIDIA device open:$processes; stop them first"
    for module in $(loaded_modules); do
        on_top=0 foreign=''
        for above in "$SYSFS/module/$(kernel_name "$module")"/holders/*; do
            [ -e "$above" ] || continue
            on_top=$((on_top + 1))
            case " $(kernel_name "$ALL_MODULES") " in *" ${above##*/} "*) ;; *) foreign="$foreign ${above##*/}" ;; esac
        done
        [ -z "$foreign" ] || BUSY="${BUSY:+$BUSY; }$module is used by the module$foreign; remove it first"
        first_line "$SYSFS/module/$(kernel_name "$module")/refcnt"
        if [ -z "$BUSY" ] && [ "$ours" = '  ' ] && [ "${LINE:-0}" -gt "$on_top" ]; then
            BUSY="$module has $((LINE - on_top)) users that cannot be seen from here; run with the host's PID namespace (--pid=host) to have them named"
        fi
    done
}

# remove_all: only after why_busy found nothing.
remove_all() {
    stop_daemons
    for module in $(loaded_modules | backwards); do
        said=$(rmmod "$module" 2>&1) || die 13 "$module could not be removed: $(printf '%s' "$said" | tr '\n' ' ')"
    done
}
