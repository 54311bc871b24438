# shellcheck shell=sh
# Loading and unloading as a whole: every refusal comes before the first change, and a failure leaves nothing half done.

# bring_up STAYS
bring_up() {
    need_image
    check_kernel
    check_gpu
    version=$(loaded_version)
    [ -z "$version" ] || [ "$version" = "$DRIVER" ] ||
        die 12 "NVIDIA driver $version is loaded, this image is $DRIVER: unload it with its own image (nvidia-driver unload), or reboot"
    choose_kind
    # shellcheck disable=SC2046
    set -- "$1" $(wanted_modules)
    stays=$1
    shift
    missing=''
    for module in "$@"; do
        case " $MODULES " in *" $module "*) ;; *) die 2 "NVIDIA_DRIVER_MODULES names $module, this image holds: $MODULES" ;; esac
        is_loaded "$module" || missing="$missing $module"
    done
    check_fabric "$stays"
    if [ -z "$missing" ]; then
        kind=$(loaded_kind)
        say "driver $DRIVER${kind:+ ($kind)} is already loaded; nothing is reloaded"
    else
        # shellcheck disable=SC2086
        check_signatures $missing
        clear_the_way
        clear_half "$missing"
        say "loading $KIND modules of $DRIVER for $KERNEL ($WHY)"
        prerequisites "$@"
        place_firmware
        insert_all "$@"
        version=$(loaded_version)
        [ "$version" = "$DRIVER" ] || { remove_added; die 16 "nvidia.ko says it is $version, the image says $DRIVER: the image is damaged; removed again"; }
    fi
    make_devices
    if [ -z "$(pid_in "$RUN/nvidia-fabricmanager/nv-fabricmanager.pid")" ]; then
        start_fabric || { remove_added; die 18 "$REASON; the modules that were loaded are removed again"; }
    fi
    keep_awake "$stays"
    say "driver $DRIVER is ready: $(gpus | awk 'END { print NR }') GPU(s)"
}

# clear_half MISSING: a set of which a part is loaded is what an earlier try left. It goes, unless something uses it: then it is completed.
clear_half() {
    left=$(loaded_modules)
    [ -n "$left" ] || return 0
    why_busy
    if [ -n "$BUSY" ]; then
        say "keeping the loaded modules ($BUSY) and adding$1"
        # What is to be added must be of the kind that runs.
        kind=$(loaded_kind)
        [ -z "$kind" ] || ! has_kind "$kind" || KIND=$kind WHY='as loaded'
        return 0
    fi
    say "removing what an earlier try left loaded: $(printf '%s' "$left" | tr '\n' ' ')"
    remove_all
}

load() {
    trap 'remove_added; say "stopped while loading; what had been loaded is removed again"; exit 143' TERM INT HUP
    bring_up ''
}

# take_down: fails, and says why, where something uses the modules.
take_down() {
    if [ -z "$(loaded_modules)" ]; then
        say "no NVIDIA module is loaded"
        return 0
    fi
    why_busy
    [ -z "$BUSY" ] || { say "the driver cannot be unloaded: $BUSY"; return 13; }
    remove_all
    say "the driver is unloaded"
}

unload() { take_down || exit $?; }
