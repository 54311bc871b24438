#!/bin/sh
# check_gpu_host.sh [FOLDER] - holds the program of the images to a real GPU host, on which a driver is loaded already.
#
# Runs in the repository's root, as root, on a machine with a GPU, its driver loaded and its userspace in /usr/local/nvidia (or
# DRIVER_TREE). Loads and unloads nothing. Writes what it made to FOLDER (default build/device), prints a report, and ends 1 where
# anything differs from what the machine has. Needs python3 for comparing and for the CUDA call; the program itself does not.
set -eu
LC_ALL=C
export LC_ALL
cd "$(dirname -- "$0")/../.."
out=${1:-build/device}
tree=${DRIVER_TREE:-/usr/local/nvidia}
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
volumes=/var/lib/nvidia-docker/volumes/nvidia_driver
made=''
finish() {
    rm -rf "$work"
    [ -z "$made" ] || rm -rf "$made"
}
trap finish EXIT
wrong=0
# check WHAT COMMAND…
check() {
    what=$1
    shift
    if "$@" > "$work/said" 2>&1; then echo "ok        $what"; else wrong=$((wrong + 1)); echo "MISMATCH  $what"; fi
    sed 's/^/          | /' "$work/said"
}

program=image/nvidia-driver
PATH=$tree/bin:$PATH
version=$(cat /sys/module/nvidia/version)
machine=$(uname -m)
echo "date      $(date -u +%Y-%m-%dT%H:%M:%SZ)"
echo "kernel    $(uname -r)"
echo "driver    $(head -n 1 /proc/driver/nvidia/version)"
echo "tree      $tree: $(find "$tree/lib64" -maxdepth 1 -name "*.so.$version" | wc -l) libraries of $version"
nvidia-smi -L > "$out/nvidia-smi-L" 2>&1 || :
sed 's/GPU-[0-9a-f-]*/GPU-…/; s/^/gpu       /' "$out/nvidia-smi-L"

# An image for what runs: this machine's own driver tree, and its C library as the image's own.
image=$work/image
mkdir -p "$image/opt/nvidia-driver" "$image/usr/local"
ln -s "$tree" "$image/usr/local/nvidia"
ln -s /usr/lib "$image/usr/lib"
[ ! -d /lib64 ] || ln -s /lib64 "$image/lib64"
ln -s /lib "$image/lib"
kind=proprietary
! grep -q 'Open Kernel Module' /proc/driver/nvidia/version || kind=open
modules=$(for module in nvidia nvidia-uvm nvidia-modeset nvidia-drm; do [ ! -d "/sys/module/$(echo "$module" | tr - _)" ] || printf '%s ' "$module"; done)
case $machine in aarch64) arch=arm64 ;; *) arch=amd64 ;; esac
printf 'KERNEL=%s\nDRIVER=%s\nARCH=%s\nKINDS=%s\nRECOMMENDED=%s\nMODULES="%s"\n' "$(uname -r)" "$version" "$arch" "$kind" "$kind" "${modules% }" \
    > "$image/opt/nvidia-driver/image.env"

"$program" status > "$out/status"
"$program" status --json > "$out/status.json"
check "status --json says what /proc, /sys and nvidia-smi say" python3 tests/device/gpu_host.py status "$out/status.json" "$out/nvidia-smi-L"
find /dev -name 'nvidia*' -exec stat -c '%n %t:%T %a' {} + 2> /dev/null | sort > "$work/nodes.before"
check "load finds the same driver loaded and reloads nothing" env IMAGE_ROOT="$image" HOST_ROOT="" "$program" load
find /dev -name 'nvidia*' -exec stat -c '%n %t:%T %a' {} + 2> /dev/null | sort > "$work/nodes.after"
check "load leaves every device node that was there as it was" sh -c "comm -23 '$work/nodes.before' '$work/nodes.after' | (! grep .)"
comm -13 "$work/nodes.before" "$work/nodes.after" | sed 's/^/          new node: /'
check "cdi describes $tree" "$program" cdi --driver-root "$tree" --output "$out/nvidia.json"
check "the CDI specification holds each device, library, soname and firmware of the machine, and nothing that is not there" \
    python3 tests/device/gpu_host.py cdi "$out/nvidia.json" "$tree" "$version" "$out/nvidia-smi-L"

# The volume as a container would see it; taken away again where it was not there before.
[ -e "$volumes/$version" ] || made=$volumes/$version
check "the volume is filled before its stamp" env IMAGE_ROOT="$image" HOST_ROOT="" "$program" volume
check "nvidia-smi runs by the volume's own loader" sh -c "env -i '$volumes/$version/host-bin/nvidia-smi' -L > '$out/volume-nvidia-smi-L' && cmp '$out/volume-nvidia-smi-L' '$out/nvidia-smi-L'"
check "CUDA works through the volume's libraries alone" env -i LD_LIBRARY_PATH="$volumes/$version/lib64" "$(command -v python3)" tests/device/gpu_host.py cuda "$volumes/$version/lib64"
echo
[ "$wrong" = 0 ] || { echo "$wrong mismatch(es)"; exit 1; }
echo 'all as on the machine'
