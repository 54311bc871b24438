# shellcheck shell=sh
# What this image is, which kind of modules fits the machine, and where a module's file comes from.

# read_image: KERNEL DRIVER ARCH KINDS RECOMMENDED MODULES from the file that the build writes; fails where there is none.
read_image() {
    KERNEL='' DRIVER='' ARCH='' KINDS='' RECOMMENDED='' MODULES=''
    [ -r "$IMAGE_ROOT/opt/nvidia-driver/image.env" ] || return 1
    # shellcheck source=/dev/null
    . "$IMAGE_ROOT/opt/nvidia-driver/image.env"
}

need_image() {
    read_image || die 2 "$IMAGE_ROOT/opt/nvidia-driver/image.env is missing: this is no driver image; run this inside driver:<kernel>-<nvidia>"
    for word in KERNEL DRIVER KINDS RECOMMENDED MODULES; do
        eval "[ -n \"\$$word\" ]" || die 2 "$IMAGE_ROOT/opt/nvidia-driver/image.env lacks $word: the image is damaged, pull it again"
    done
}

# tag_text KERNEL: as it stands in an image's tag, where + and ~ may not.
tag_text() { printf '%s\n' "$1" | sed 's/[+~]/_/g'; }

check_kernel() {
    first_line "$PROC/sys/kernel/osrelease"
    [ "$LINE" = "$KERNEL" ] ||
        die 11 "this image is for kernel $KERNEL, this host runs $LINE: pull driver:$(tag_text "$LINE")-$DRIVER"
}

GPU_TABLE=$IMAGE_ROOT/opt/nvidia-driver/gpus

# kind_of VENDOR:DEVICE:SUBVENDOR:SUBDEVICE: what the driver's table of GPUs says of it: "open", "proprietary", "both", "listed" (by which
# kind is not known) or "legacy 470"; empty where it has no line. A board with a line of its own goes before its device.
kind_of() {
    [ -r "$GPU_TABLE" ] || return 0
    awk -v board="$1" 'BEGIN { split(board, id, ":"); device = id[1] ":" id[2] }
        tolower($1) == board || tolower($1) == device { own = tolower($1) == board; $1 = ""; sub(/^ */, ""); found = $0; if (own) exit }
        END { print found }' "$GPU_TABLE"
}

has_kind() { case " $KINDS " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }

# choose_kind: KIND and WHY, by the setting, else the table of GPUs, else the recommendation for this branch.
choose_kind() {
    asked=${KERNEL_MODULE_TYPE:-auto}
    only_open='' only_proprietary='' either='' unknown='' legacy='' branch='' served=''
    for board in $(gpus | awk '{ print $3 }' | sort -u); do
        gpu=${board%:*:*} answer=$(kind_of "$board")
        case $answer in
            open) only_open="$only_open $gpu" served=1 ;;
            proprietary) only_proprietary="$only_proprietary $gpu" served=1 ;;
            both) either="$either $gpu" served=1 ;;
            legacy*) branch=${answer#legacy } legacy="$legacy GPU $gpu needs branch $branch," ;;
            '') unknown="$unknown $gpu" served=1 ;;
            *) served=1 ;;
        esac
    done
    if [ -n "$legacy" ]; then
        [ -n "$served" ] || die 17 "${legacy# } which $DRIVER no longer serves: pull driver:$(tag_text "$KERNEL")-$branch"
        warn "${legacy# } which $DRIVER no longer serves; the other GPUs are"
    fi
    [ -z "$unknown" ] || [ ! -r "$GPU_TABLE" ] || warn "GPU$unknown is not in the list of $DRIVER: it may be newer than this driver"
    case $asked in
        open | proprietary)
            KIND=$asked WHY="KERNEL_MODULE_TYPE=$asked"
            [ "$KIND" = proprietary ] || [ -z "$only_proprietary" ] || warn "GPU$only_proprietary takes only proprietary modules, and $WHY"
            [ "$KIND" = open ] || [ -z "$only_open" ] || warn "GPU$only_open takes only open modules, and $WHY"
            ;;
        auto)
            [ -z "$only_open" ] || [ -z "$only_proprietary" ] ||
                die 17 "GPU$only_open takes only open modules and$only_proprietary only proprietary ones: set KERNEL_MODULE_TYPE to choose which GPU works"
            if [ -n "$only_open" ]; then
                KIND=open WHY="GPU$only_open takes no other"
            elif [ -n "$only_proprietary" ]; then
                KIND=proprietary WHY="GPU$only_proprietary takes no other"
            else
                KIND=$RECOMMENDED WHY="recommended for $DRIVER${either:+; GPU$either takes either}"
            fi
            ;;
        *) die 2 "KERNEL_MODULE_TYPE=$asked is none of auto, open, proprietary" ;;
    esac
    has_kind "$KIND" || die 17 "$KIND modules are wanted ($WHY), this image holds: $KINDS; pull an image with them or set KERNEL_MODULE_TYPE"
}

# show_kind: which kind would be loaded here, on stdout; why, on stderr. For any kernel's image: nothing of the kernel is asked.
show_kind() {
    need_image
    choose_kind
    say "$KIND modules of $DRIVER ($WHY)"
    printf '%s\n' "$KIND"
}

# module_directory: where modules of KIND lie; the recommended kind's root is /opt, where KMM looks by default.
module_directory() {
    if [ "$KIND" = "$RECOMMENDED" ]; then
        printf '%s\n' "$IMAGE_ROOT/opt/lib/modules/$KERNEL"
    else
        printf '%s\n' "$IMAGE_ROOT/opt/$KIND/lib/modules/$KERNEL"
    fi
}

# module_file NAME: MODULE_FILE, a plain .ko that can be inserted. The one place that knows in what form modules lie in the image.
module_file() {
    MODULE_FILE=$(module_directory)/$1.ko
    [ ! -r "$MODULE_FILE" ] || return 0
    packed=$MODULE_FILE.zst
    [ -r "$packed" ] || die 2 "$MODULE_FILE is missing: the image is damaged, pull it again"
    scratch
    mkdir -p "$SCRATCH/$KIND"
    MODULE_FILE=$SCRATCH/$KIND/$1.ko
    [ -r "$MODULE_FILE" ] || zstd -d -q -f -o "$MODULE_FILE" "$packed" ||
        die 1 "$packed cannot be unpacked to $SCRATCH: see the line above (no room?)"
}
