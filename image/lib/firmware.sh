# shellcheck shell=sh
# GSP firmware: on the host, where the kernel finds it. A GPU asks for it again (reset, resume) after the container is gone.

OPERATOR_FIRMWARE=/run/nvidia/driver/lib/firmware

# is_mounted PATH: whether something is mounted right there; /lib may be a link to usr/lib, and mountinfo names the real path.
is_mounted() {
    [ -r "$PROC/self/mountinfo" ] || return 1
    awk -v path="$1" '$5 == path || $5 == "/usr" path { found = 1 } END { exit !found }' "$PROC/self/mountinfo"
}

# copy_file FROM TO: whole or not at all; one of the same size is taken as there, since only whole files get their name.
copy_file() {
    if [ -f "$2" ] && [ "$(stat -c %s "$1")" = "$(stat -c %s "$2")" ]; then
        return 0
    fi
    cp "$1" "$2.new$$" && mv -f "$2.new$$" "$2" || { rm -f "$2.new$$"; return 1; }
}

# place_firmware: copies the image's firmware out and sets the kernel's search path, unless somebody else has set one: that one stays.
place_firmware() {
    from=$IMAGE_ROOT/firmware/nvidia/$DRIVER
    [ -d "$from" ] || return 0
    parameter=$SYSFS/module/firmware_class/parameters/path
    first_line "$parameter"
    path=/var/lib/nvidia-driver/$DRIVER/firmware
    place=$HOST_ROOT$path
    if is_mounted /lib/firmware; then
        # The GPU Operator mounts a directory of the host there, which the host sees below the driver root.
        path=$OPERATOR_FIRMWARE place=$IMAGE_ROOT/lib/firmware
    fi
    case $LINE in
        '' | "$path" | /var/lib/nvidia-driver/*/firmware) ;;
        "$OPERATOR_FIRMWARE") path=$LINE place=$HOST_ROOT$LINE ;;
        *)
            [ -e "$HOST_ROOT$LINE/nvidia/$DRIVER" ] ||
                warn "the kernel's firmware search path is already $LINE and stays; nvidia/$DRIVER is not seen below it: copy $from there if the GPU does not start"
            return 0
            ;;
    esac
    mkdir -p "$place/nvidia/$DRIVER" || die 1 "firmware: cannot make $place/nvidia/$DRIVER: mount the host's /var/lib/nvidia-driver there, writable"
    for file in "$from"/*; do
        copy_file "$file" "$place/nvidia/$DRIVER/${file##*/}" || die 1 "firmware: cannot copy $file to $place/nvidia/$DRIVER: is the disk full?"
    done
    [ "$LINE" != "$path" ] || return 0
    { printf '%s' "$path" > "$parameter"; } 2> /dev/null ||
        warn "cannot write $path to $parameter: mount /sys writable, or boot with firmware_class.path=$path"
}
