# shellcheck shell=sh
# What the machine has: GPUs, switches, drivers that hold them, what its kernel allows, and who uses the driver.

# pci_nvidia CLASS: a line "<bus address> 10de:<device> 10de:<device>:<subsystem vendor>:<subsystem device>" for each NVIDIA function
# whose class begins so (0x03 display, 0x0680 bridge).
pci_nvidia() {
    for function in "$SYSFS"/bus/pci/devices/*; do
        first_line "$function/vendor"
        [ "$LINE" = 0x10de ] || continue
        first_line "$function/class"
        case $LINE in "$1"*) ;; *) continue ;; esac
        first_line "$function/device"
        id=10de:${LINE#0x}
        first_line "$function/subsystem_vendor"
        board=${LINE#0x}
        first_line "$function/subsystem_device"
        printf '%s %s %s\n' "${function##*/}" "$id" "$id:$board:${LINE#0x}"
    done
}

gpus() { pci_nvidia 0x03; }
switches() { pci_nvidia 0x0680; }

check_gpu() {
    [ -z "$(gpus)" ] || return 0
    [ "${NVIDIA_DRIVER_TRY:-}" != 1 ] || { warn "no NVIDIA GPU in this machine; trying all the same (NVIDIA_DRIVER_TRY=1)"; return 0; }
    die 10 "no NVIDIA GPU in this machine ($SYSFS/bus/pci/devices has no display device of vendor 10de): nothing was loaded"
}

# bound_to ADDRESS: the driver that holds a PCI function, empty for none.
bound_to() {
    holder=$(readlink "$SYSFS/bus/pci/devices/$1/driver" 2> /dev/null) || holder=''
    printf '%s\n' "${holder##*/}"
}

# clear_the_way: unloads an unused nouveau, else names what holds the GPUs.
clear_the_way() {
    if [ -d "$SYSFS/module/nouveau" ]; then
        first_line "$SYSFS/module/nouveau/refcnt"
        if [ "$LINE" = 0 ] && rmmod nouveau; then
            say "unloaded nouveau, which nothing used"
        else
            die 14 "nouveau is loaded and in use: boot with modprobe.blacklist=nouveau (and without its initramfs copy), then load again"
        fi
    fi
    taken='' free=''
    for address in $(gpus | awk '{ print $1 }'); do
        case $(bound_to "$address") in
            '' | nvidia | nouveau) free=1 ;;
            *) taken="$taken $address ($(bound_to "$address"))" ;;
        esac
    done
    [ -n "$taken" ] || return 0
    [ -n "$free" ] || die 14 "every GPU is held by another driver:$taken; unbind it first"
    warn "held by another driver, left alone:$taken"
}

# demands_signature: WHY_SIGNED, empty where the kernel takes unsigned modules.
demands_signature() {
    WHY_SIGNED=''
    first_line "$SYSFS/kernel/security/lockdown"
    case $LINE in
        *'[integrity]'* | *'[confidentiality]'*)
            WHY_SIGNED="kernel lockdown is ${LINE#*'['}"
            WHY_SIGNED=${WHY_SIGNED%%']'*}
            ;;
    esac
    first_line "$SYSFS/module/module/parameters/sig_enforce"
    case $LINE in [Yy1]*) WHY_SIGNED="${WHY_SIGNED:+$WHY_SIGNED and }module.sig_enforce is on" ;; esac
}

# is_signed FILE: whether a signature is appended, by the marker that ends such a file (linux: include/linux/module_signature.h).
is_signed() { [ "$(tail -c 28 "$1" | tr -d '\000')" = '~Module signature appended~' ]; }

check_signatures() {
    first_line "$PROC/sys/kernel/modules_disabled"
    [ "$LINE" != 1 ] || die 15 "kernel.modules_disabled is 1: this kernel takes no module until the next boot"
    demands_signature
    [ -n "$WHY_SIGNED" ] || return 0
    for module in "$@"; do
        module_file "$module"
        is_signed "$MODULE_FILE" ||
            die 15 "$WHY_SIGNED, and $module.ko is not signed: use signed modules with their key enrolled (mokutil), or switch Secure Boot off"
    done
}

# holders: a line "<pid> <command>" for each process with an NVIDIA device open, as far as this PID namespace sees.
holders() {
    # One ls for all of them: a fork for each descriptor takes minutes on a busy host. /dev/null makes it print directory names always.
    { ls -l /dev/null "$PROC"/[0-9]*/fd 2> /dev/null || :; } |
        awk '/\/fd:$/ { n = split($0, part, "/"); pid = part[n - 1] } / -> \/dev\/nvidia/ { print pid }' | sort -un |
        while read -r pid; do
            first_line "$PROC/$pid/comm"
            printf '%s %s\n' "$pid" "$LINE"
        done
}
