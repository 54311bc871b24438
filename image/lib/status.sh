# shellcheck shell=sh
# What is loaded, on what, and who uses it: one line for people, or JSON.

status() {
    json=''
    case ${1:-} in
        '') ;;
        --json) json=1 ;;
        *) die 2 "status takes --json or nothing, got '$1'" ;;
    esac
    read_image || :
    first_line "$PROC/sys/kernel/osrelease"
    running=$LINE
    version=$(loaded_version)
    kind=$(loaded_kind)
    # In a subshell: an image that does not serve the GPU is an answer here, not the end.
    # shellcheck disable=SC2153
    [ -z "$DRIVER" ] || chosen=$( (choose_kind 2>&1 && printf '\n%s %s\n' "$KIND" "$WHY") | sed -n '$p')
    if [ -n "$json" ]; then status_json; else status_line; fi
    [ -n "$version" ] || exit 3
    [ -z "$DRIVER" ] || [ "$version" = "$DRIVER" ] || exit 12
}

status_line() {
    image="${DRIVER:+; image: $DRIVER for $KERNEL}"
    count=$(gpus | awk 'END { print NR }')
    if [ -z "$version" ]; then
        case ${chosen:-} in
            '') ;;
            open\ * | proprietary\ *) image="$image, ${chosen%% *} modules (${chosen#* })" ;;
            *) image="$image; ${chosen#nvidia-driver: }" ;;
        esac
        printf 'NVIDIA driver: not loaded on %s, %s GPU(s)%s\n' "$running" "$count" "$image"
        return 0
    fi
    users=$(holders | awk '{ printf "%s%s (%s)", sep, $1, $2; sep = ", " }')
    printf 'NVIDIA driver: %s%s loaded on %s, %s GPU(s), used by %s%s\n' "$version" "${kind:+ $kind}" "$running" "$count" "${users:-nobody}" "$image"
}

# words_json WORD…
words_json() {
    comma=''
    printf '['
    for word in "$@"; do
        printf '%s' "$comma"
        json_string "$word"
        comma=', '
    done
    printf ']'
}

status_json() {
    printf '{"schema": 1, "kernel": '
    json_string "$running"
    printf ', "image": '
    if [ -n "$DRIVER" ]; then
        # shellcheck disable=SC2086
        printf '{"kernel": %s, "driver": %s, "kinds": %s, "recommended": %s}' "$(json_string "$KERNEL")" "$(json_string "$DRIVER")" \
            "$(words_json $KINDS)" "$(json_string "$RECOMMENDED")"
    else
        printf null
    fi
    printf ', "choice": '
    case ${chosen:-} in
        '') printf null ;;
        open\ * | proprietary\ *) printf '{"kind": %s, "why": %s}' "$(json_string "${chosen%% *}")" "$(json_string "${chosen#* }")" ;;
        *) printf '{"kind": null, "why": %s}' "$(json_string "${chosen#nvidia-driver: }")" ;;
    esac
    printf ', "loaded": '
    if [ -n "$version" ]; then
        # shellcheck disable=SC2046
        printf '{"driver": %s, "kind": %s, "modules": %s}' "$(json_string "$version")" "$(if [ -n "$kind" ]; then json_string "$kind"; else echo null; fi)" \
            "$(words_json $(loaded_modules))"
    else
        printf null
    fi
    printf ', "gpus": ['
    comma=''
    gpus | while read -r address id _; do
        directory=$PROC/driver/nvidia/gpus/$address
        minor=$(gpu_field "$directory" 'Device Minor')
        printf '%s{"address": "%s", "id": "%s", "bound_to": %s, "minor": %s, "model": %s}' "$comma" "$address" "$id" \
            "$(json_string "$(bound_to "$address")")" "${minor:-null}" "$(json_string "$(gpu_field "$directory" Model)")"
        comma=', '
    done
    printf '], "holders": ['
    comma=''
    holders | while read -r pid comm; do
        printf '%s{"pid": %s, "command": %s}' "$comma" "$pid" "$(json_string "$comm")"
        comma=', '
    done
    first_line "$SYSFS/module/firmware_class/parameters/path"
    printf '], "firmware_path": %s}\n' "$(json_string "$LINE")"
}
