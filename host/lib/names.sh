# shellcheck shell=sh
# What this host is, and how images for it are called.

# read_host: KERNEL, ARCH, OS, OS_TAG.
read_host() {
    first_line "$ROOT/proc/sys/kernel/osrelease"
    KERNEL=$LINE
    case $(uname -m) in aarch64) ARCH=arm64 ;; *) ARCH=amd64 ;; esac
    ID='' VERSION_ID='' VARIANT_ID=''
    for file in "$ROOT/etc/os-release" "$ROOT/usr/lib/os-release"; do
        [ -r "$file" ] || continue
        os_release ID "$file"; ID=$FOUND
        os_release VERSION_ID "$file"; VERSION_ID=$FOUND
        os_release VARIANT_ID "$file"; VARIANT_ID=$FOUND
        break
    done
    OS_TAG=$ID$VERSION_ID
    case $ID in
        flatcar) OS=flatcar ;;
        coreos) OS="container-linux" ;;
        *) if [ "$VARIANT_ID" = coreos ] || command -v rpm-ostree > /dev/null; then OS=fedora-coreos; else OS=debian; fi ;;
    esac
}

# os_release NAME FILE: FOUND. No program is started for it: a slow host takes a tenth of a second for each.
os_release() {
    FOUND=''
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in "$1="*) FOUND=${line#*=}; break ;; esac
    done < "$2"
    case $FOUND in
        \"*\") FOUND=${FOUND#\"} FOUND=${FOUND%\"} ;;
        \'*\') FOUND=${FOUND#\'} FOUND=${FOUND%\'} ;;
    esac
}

# tag_text KERNEL: as it stands in a tag, where + and ~ may not.
tag_text() { case $1 in *[+~]*) printf '%s\n' "$1" | sed 's/[+~]/_/g' ;; *) printf '%s\n' "$1" ;; esac; }

# tags_of KERNEL DRIVER: the OS-qualified name first: two builds of one kernel string are told apart by it.
tags_of() {
    [ -z "$OS_TAG" ] || [ "$1" != "$KERNEL" ] || printf '%s-%s-%s\n' "$2" "$(tag_text "$1")" "$OS_TAG"
    [ -z "${NEXT_OS_TAG:-}" ] || [ "$1" = "$KERNEL" ] || printf '%s-%s-%s\n' "$2" "$(tag_text "$1")" "$NEXT_OS_TAG"
    printf '%s-%s\n' "$(tag_text "$1")" "$2"
}

# older VERSION THAN: true where every earlier number is equal and one is smaller.
older() {
    awk -v a="$1" -v b="$2" 'BEGIN { n = split(a, x, "."); m = split(b, y, ".")
        for (i = 1; i <= n || i <= m; i++) { if (x[i] + 0 < y[i] + 0) exit 0; if (x[i] + 0 > y[i] + 0) exit 1 } exit 1 }'
}

# has_nvidia CLASS: a function of NVIDIA on the PCI bus whose class begins so.
has_nvidia() {
    for function in "$ROOT"/sys/bus/pci/devices/*; do
        first_line "$function/vendor"
        [ "$LINE" = 0x10de ] || continue
        first_line "$function/class"
        case $LINE in "$1"*) return 0 ;; esac
    done
    return 1
}

# has_gpu: a display function, or a trial without one. has_switch: an NVSwitch, which is a bridge.
has_gpu() { [ "$NVIDIA_DRIVER_TRY" = 1 ] || has_nvidia 0x03; }
has_switch() { has_nvidia 0x0680; }

loaded_version() {
    first_line "$ROOT/sys/module/nvidia/version"
    printf '%s\n' "$LINE"
}
