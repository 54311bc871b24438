# shellcheck shell=sh
# Device nodes, as nvidia-modprobe makes them: majors from /proc/devices, modes from what the driver says in /proc.

# major_of NAME: empty where no driver of that name is registered.
major_of() { awk -v name="$1" '/^Block/ { exit } $2 == name { print $1; exit }' "$PROC/devices"; }

# node PATH MAJOR MINOR MODE: makes it, or puts it right.
node() {
    if [ -c "$1" ]; then
        if [ "$(stat -c '%t:%T' "$1")" = "$(printf '%x:%x' "$2" "$3")" ]; then
            chmod "$4" "$1"
            return 0
        fi
        rm -f "$1"
    fi
    mknod -m "$4" "$1" c "$2" "$3" || die 1 "cannot make the device node $1: run with the host's /dev and CAP_MKNOD"
    chown "${DEVICE_UID:-0}:${DEVICE_GID:-0}" "$1" || die 1 "cannot give $1 to ${DEVICE_UID:-0}:${DEVICE_GID:-0}"
}

# parameter NAME: of the loaded driver.
parameter() { awk -F': *' -v name="$1" '$1 == name { print $2; exit }' "$PROC/driver/nvidia/params" 2> /dev/null || :; }

# gpu_field DIRECTORY NAME: one value of a GPU's information file.
gpu_field() { awk -F':[ \t]+' -v name="$2" '$1 == name { print $2; exit }' "$1/information" 2> /dev/null || :; }

# capability_files [BELOW]: files that each stand for one node below /dev/nvidia-caps.
capability_files() {
    [ -d "$PROC/driver/nvidia/capabilities${1:-}" ] || return 0
    find "$PROC/driver/nvidia/capabilities${1:-}" -type f | sort
}

capability_field() { awk -v name="$2:" '$1 == name { print $2; exit }' "$1"; }

make_devices() {
    [ "$(parameter ModifyDeviceFiles)" != 0 ] || { say "NVreg_ModifyDeviceFiles=0: device nodes are left to the administrator"; return 0; }
    DEVICE_UID=$(parameter DeviceFileUID) DEVICE_GID=$(parameter DeviceFileGID)
    mode=$(parameter DeviceFileMode)
    mode=$(printf '%o' "${mode:-438}")
    # The name of NVIDIA's major has changed over the branches; the number has always been 195.
    major=$(major_of nvidia)
    [ -n "$major" ] || major=$(major_of nvidia-frontend)
    : "${major:=195}"
    node "$DEV/nvidiactl" "$major" 255 "$mode"
    ! is_loaded nvidia-modeset || node "$DEV/nvidia-modeset" "$major" 254 "$mode"
    for gpu in "$PROC"/driver/nvidia/gpus/*; do
        minor=$(gpu_field "$gpu" 'Device Minor')
        [ -n "$minor" ] || continue
        case $(gpu_field "$gpu" 'GPU Excluded') in Yes) continue ;; esac
        node "$DEV/nvidia$minor" "$major" "$minor" "$mode"
    done
    uvm=$(major_of nvidia-uvm)
    if [ -n "$uvm" ]; then
        node "$DEV/nvidia-uvm" "$uvm" 0 "$mode"
        node "$DEV/nvidia-uvm-tools" "$uvm" 1 "$mode"
    fi
    caps=$(major_of nvidia-caps)
    [ -z "$caps" ] || for file in $(capability_files); do
        [ "$(capability_field "$file" DeviceFileModify)" != 0 ] || continue
        minor=$(capability_field "$file" DeviceFileMinor)
        [ -n "$minor" ] || continue
        mkdir -p "$DEV/nvidia-caps" && chmod 755 "$DEV/nvidia-caps"
        node "$DEV/nvidia-caps/nvidia-cap$minor" "$caps" "$minor" "$(printf '%o' "$(capability_field "$file" DeviceFileMode)")"
    done
    switch=$(major_of nvidia-nvswitch)
    # The major is there on every machine; the nodes are wanted where a switch is (seen on an H100 without one, 580.159.04).
    if [ -n "$switch" ] && [ -n "$(switches)" ]; then
        node "$DEV/nvidia-nvswitchctl" "$switch" 255 "$mode"
        number=0
        for directory in "$PROC"/driver/nvidia-nvswitch/devices/*; do
            [ -e "$directory" ] || continue
            node "$DEV/nvidia-nvswitch$number" "$switch" "$number" "$mode"
            number=$((number + 1))
        done
    fi
}
