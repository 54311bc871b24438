# shellcheck shell=sh
# The CDI specification (Container Device Interface 0.5.0, the lowest version in which a device may be called "0"):
# each GPU by index and by UUID, and all of them; libraries by version, mounted under their soname where the host has no hook for that.

VOLUMES=/var/lib/nvidia-docker/volumes/nvidia_driver

# multiarch: Debian's name for this machine's libraries.
multiarch() {
    case ${ARCH:-$(uname -m)} in
        arm64 | aarch64) echo aarch64-linux-gnu ;;
        *) echo x86_64-linux-gnu ;;
    esac
}

# driver_root: the directory with bin and lib64, by the host's path; empty where none is known.
driver_root() {
    if [ -e "$HOST_ROOT$VOLUMES/$VERSION/.complete" ]; then
        printf '%s\n' "$VOLUMES/$VERSION"
    elif is_mounted "$RUN/nvidia/driver"; then
        echo /run/nvidia/driver/usr/local/nvidia
    elif [ -z "$DRIVER" ] && [ -d "$HOST_ROOT/usr/local/nvidia/lib64" ]; then
        echo /usr/local/nvidia
    fi
}

# gpu_table: a line "<index> <minor> <address> <UUID or ->" for each GPU. nvidia-smi and /proc both go by PCI address.
gpu_table() {
    listed=$(timeout 60 nvidia-smi -L 2> /dev/null | sed -n 's/^GPU [0-9]*: .*(UUID: \(GPU-[^)]*\))$/\1/p') || listed=''
    index=0
    for gpu in "$PROC"/driver/nvidia/gpus/*; do
        minor=$(gpu_field "$gpu" 'Device Minor')
        [ -n "$minor" ] && [ "$(gpu_field "$gpu" 'GPU Excluded')" != Yes ] || continue
        uuid=$(printf '%s\n' "$listed" | sed -n "$((index + 1))p")
        [ -n "$uuid" ] || uuid=$(gpu_field "$gpu" 'GPU UUID')
        # Before its first use a GPU's UUID in /proc is all question marks.
        case $uuid in *'?'* | '') uuid=- ;; esac
        printf '%s %s %s %s\n' "$index" "$minor" "${gpu##*/}" "$uuid"
        index=$((index + 1))
    done
}

# existing NODE…: those that are there, by their path on the host.
existing() { for path in "$@"; do [ ! -e "$DEV/$path" ] || printf '/dev/%s\n' "$path"; done; }

# gpu_nodes MINOR ADDRESS
gpu_nodes() {
    existing "nvidia$1"
    for directory in "$SYSFS/bus/pci/devices/$2"/drm/card* "$SYSFS/bus/pci/devices/$2"/drm/renderD*; do
        existing "dri/${directory##*/}"
    done
    for file in $(capability_files "/gpu$1" | grep /gi); do
        existing "nvidia-caps/nvidia-cap$(capability_field "$file" DeviceFileMinor)"
    done
}

# libraries: a line "<path below lib64> <name>" for each file of this driver, once under its own name and once for each link to it.
libraries() {
    (
        cd "$HOST_ROOT$PREFIX/lib64" || exit 1
        for file in *.so."$VERSION" vdpau/*.so."$VERSION" gbm/*.so libnvidia-nvvm70.so.* libnvidia-egl-*.so.*.*; do
            [ -f "$file" ] || continue
            # A link such as gbm/nvidia-drm_gbm.so is called by its name, so it stands for the file behind it.
            if [ -L "$file" ]; then
                target=$(readlink -f "$file")
                printf '%s %s\n' "${target#"$PWD/"}" "$file"
            else
                printf '%s %s\n' "$file" "$file"
            fi
        done
        for link in *.so.[0-9] *.so.[0-9][0-9] vdpau/*.so.[0-9] libcuda.so libnvidia-opticalflow.so; do
            [ -L "$link" ] && [ -f "$link" ] || continue
            target=$(readlink -f "$link")
            case $target in *.so."$VERSION" | */libnvidia-nvvm70.so.* | */libnvidia-egl-*) printf '%s %s\n' "${target#"$PWD/"}" "$link" ;; esac
        done
    ) | sort -u
}

# firmware_directory: where the kernel finds this driver's firmware, by the host's path.
firmware_directory() {
    first_line "$PROC/sys/kernel/osrelease"
    kernel=$LINE
    first_line "$SYSFS/module/firmware_class/parameters/path"
    for directory in $LINE "/lib/firmware/updates/$kernel" /lib/firmware/updates "/lib/firmware/$kernel" /lib/firmware; do
        [ ! -d "$HOST_ROOT$directory/nvidia/$VERSION" ] || { printf '%s\n' "$directory/nvidia/$VERSION"; return 0; }
    done
}

# mounts: lines "<host path>TAB<container path>", in order of the latter.
mounts() {
    if [ -n "$HOOK" ]; then
        libraries | awk -v d="$PREFIX/lib64/" -v t="$LIBRARY_DIRECTORY/" '$1 == $2 { print d $1 "\t" t $2 }'
    else
        for place in "$LIBRARY_DIRECTORY" /usr/lib64; do
            libraries | awk -v d="$PREFIX/lib64/" -v t="$place/" '{ print d $1 "\t" t $2 }'
        done
    fi
    for tool in nvidia-smi nvidia-debugdump nvidia-persistenced nvidia-cuda-mps-control nvidia-cuda-mps-server; do
        [ ! -f "$HOST_ROOT$PREFIX/bin/$tool" ] || printf '%s\t%s\n' "$PREFIX/bin/$tool" "/usr/bin/$tool"
    done
    for file in egl/egl_external_platform.d/* glvnd/egl_vendor.d/* vulkan/icd.d/* vulkan/implicit_layer.d/* nvidia/*; do
        for found in "$HOST_ROOT$PREFIX/share"/$file; do
            [ -f "$found" ] || continue
            found=${found#"$HOST_ROOT$PREFIX/share/"}
            printf '%s\t%s\n' "$PREFIX/share/$found" "/usr/share/$found"
        done
    done
    [ ! -f "$HOST_ROOT$PREFIX/share/OpenCL/vendors/nvidia.icd" ] ||
        printf '%s\t%s\n' "$PREFIX/share/OpenCL/vendors/nvidia.icd" /etc/OpenCL/vendors/nvidia.icd
    firmware=$(firmware_directory)
    [ -z "$firmware" ] || for file in "$HOST_ROOT$firmware"/gsp*.bin; do
        [ ! -f "$file" ] || printf '%s\t%s\n' "$firmware/${file##*/}" "/lib/firmware/nvidia/$VERSION/${file##*/}"
    done
    for socket in nvidia-persistenced/socket nvidia-fabricmanager/socket; do
        [ ! -e "$RUN/$socket" ] || printf '%s\t%s\n' "/run/$socket" "/run/$socket"
    done
}

# find_hook: HOOK, the host's program for CDI hooks, empty where it has none.
find_hook() {
    for HOOK in /usr/bin/nvidia-cdi-hook /usr/local/bin/nvidia-cdi-hook /opt/bin/nvidia-cdi-hook /usr/bin/nvidia-ctk /usr/local/bin/nvidia-ctk /opt/bin/nvidia-ctk; do
        [ ! -x "$HOST_ROOT$HOOK" ] || return 0
    done
    HOOK=''
}

# hook_json NAME ARGUMENT…
hook_json() {
    case $HOOK in
        */nvidia-ctk) set -- nvidia-ctk hook "$@" ;;
        *) set -- nvidia-cdi-hook "$@" ;;
    esac
    printf '      {"hookName": "createContainer", "path": %s, "args": %s}' "$(json_string "$HOOK")" "$(words_json "$@")"
}

hooks_json() {
    set --
    # shellcheck disable=SC2046
    set -- $(libraries | awk -v t="$LIBRARY_DIRECTORY/" '$1 != $2 { n = split($1, part, "/"); print "--link"; print part[n] "::" t $2 }')
    [ $# -eq 0 ] || { hook_json create-symlinks "$@"; printf ',\n'; }
    hook_json update-ldcache --folder "$LIBRARY_DIRECTORY"
    printf '\n'
}

# nodes_json: paths on stdin, each once.
nodes_json() { sort -u | json_escape | awk '{ printf "%s{\"path\": \"%s\"}", sep, $0; sep = ", " } END { print "" }'; }

# device_json NAME: nodes on stdin.
device_json() { printf '    {"name": "%s", "containerEdits": {"deviceNodes": [%s]}}' "$1" "$(nodes_json)"; }

spec() {
    table=$(gpu_table)
    printf '{\n  "cdiVersion": "0.5.0",\n  "kind": "nvidia.com/gpu",\n  "devices": [\n'
    printf '%s\n' "$table" | while read -r index minor address uuid; do
        gpu_nodes "$minor" "$address" | device_json "$index"
        printf ',\n'
        [ "$uuid" != - ] || continue
        gpu_nodes "$minor" "$address" | device_json "$uuid"
        printf ',\n'
    done
    printf '%s\n' "$table" | while read -r index minor address uuid; do gpu_nodes "$minor" "$address"; done | device_json all
    printf '\n  ],\n  "containerEdits": {\n    "env": ["NVIDIA_VISIBLE_DEVICES=void"],\n    "deviceNodes": [%s],\n' \
        "$(existing nvidiactl nvidia-modeset nvidia-uvm nvidia-uvm-tools | nodes_json)"
    if [ -n "$HOOK" ]; then
        printf '    "hooks": [\n'
        hooks_json
        printf '    ],\n'
    fi
    printf '    "mounts": [\n'
    mounts | sort -u -t "$(printf '\t')" -k 2 | sed 's/[\\"]/\\&/g' | awk -F '\t' '{
        socket = $2 ~ /\/socket$/ ? "\"noexec\", " : ""
        printf "%s      {\"hostPath\": \"%s\", \"containerPath\": \"%s\", \"options\": [\"ro\", \"nosuid\", \"nodev\", %s\"rbind\", \"rprivate\"]}", sep, $1, $2, socket
        sep = ",\n" } END { print "" }'
    printf '    ]\n  }\n}\n'
}

# other_spec: a specification of the same devices beside ours, for which a runtime would refuse both.
other_spec() {
    for found in "$HOST_ROOT"/etc/cdi/*.yaml "$HOST_ROOT"/etc/cdi/*.json "$RUN"/cdi/*.yaml "$RUN"/cdi/*.json; do
        [ -f "$found" ] && [ "$found" != "$1" ] || continue
        ! grep -Eq "kind\"?: *[\"']?nvidia.com/gpu[\"']?,? *$" "$found" || printf '%s ' "$found"
    done
}

write_cdi() {
    output=$RUN/cdi/nvidia.yaml PREFIX=''
    while [ $# -gt 0 ]; do
        case $1 in
            --output | --driver-root) [ $# -gt 1 ] || die 2 "cdi: $1 needs a value" ;;
            *) die 2 "cdi takes --output FILE and --driver-root DIR, got '$1'" ;;
        esac
        case $1 in --output) output=$2 ;; *) PREFIX=${2%/} ;; esac
        shift 2
    done
    read_image || :
    VERSION=$(loaded_version)
    [ -n "$VERSION" ] || die 3 "cdi: the driver is not loaded, so its devices are not known: 'nvidia-driver load' first"
    [ -n "$(gpu_table)" ] || die 10 "cdi: the driver serves no GPU ($PROC/driver/nvidia/gpus is empty)"
    [ -n "$PREFIX" ] || PREFIX=$(driver_root)
    [ -n "$PREFIX" ] || die 2 "cdi: no libraries of $VERSION on the host: 'nvidia-driver volume' first, or name their directory with --driver-root"
    set -- "$HOST_ROOT$PREFIX/lib64/libcuda.so.$VERSION"
    [ -e "$1" ] || die 2 "cdi: $1 is missing: driver $VERSION is loaded, so its own libraries must lie there; see --driver-root"
    LIBRARY_DIRECTORY=/usr/lib/$(multiarch)
    find_hook
    if [ "$output" = - ]; then
        spec
        return 0
    fi
    others=$(other_spec "$output")
    [ -z "$others" ] || warn "cdi: ${others}describes nvidia.com/gpu too; runtimes refuse devices that two files describe: remove one"
    mkdir -p "$(dirname -- "$output")" || die 1 "cdi: cannot make the directory of $output"
    # A name that runtimes do not read, then a rename: nobody sees half a file.
    new=$(dirname -- "$output")/.nvidia-cdi.$$
    spec > "$new" && chmod 644 "$new" && mv -f "$new" "$output" || { rm -f "$new"; die 1 "cdi: cannot write $output"; }
    say "wrote $output: $(gpu_table | awk 'END { print NR }') GPU(s), libraries of $VERSION from $PREFIX"
}
