# shellcheck shell=sh
# The one file of settings, and where things are kept.

STATE=$ROOT/var/lib/nvidia-driver
NOW=$ROOT/run/nvidia-driver
SETTINGS=$ROOT/etc/nvidia-driver/driver.env
KNOWN='DRIVER_REGISTRY DRIVER_VERSION DRIVER_FALLBACK DRIVER_ALLOW_OLDER DRIVER_KEY DRIVER_INSECURE DRIVER_CREDENTIALS DRIVER_RUNTIME
DRIVER_BOOT_DEADLINE DRIVER_HOLD_DEADLINE DRIVER_FLEETLOCK_UPSTREAM HTTPS_PROXY HTTP_PROXY NO_PROXY https_proxy http_proxy no_proxy'
HANDED='KERNEL_MODULE_TYPE NVIDIA_DRIVER_MODULES NVIDIA_PERSISTENCED NVIDIA_FABRICMANAGER NVIDIA_DRIVER_TRY'

# read_settings: never evaluated as shell: a line is a name and a value, and the file may come from a template.
read_settings() {
    for name in $KNOWN $HANDED; do eval ": \"\${$name=}\""; done
    [ -r "$SETTINGS" ] || return 0
    number=0
    # shellcheck disable=SC2086
    set -- $KNOWN $HANDED
    names=" $* "
    while IFS= read -r line || [ -n "$line" ]; do
        number=$((number + 1))
        case $line in
            '' | '#'*) continue ;;
            [A-Za-z_]*=*) ;;
            *) die 2 "$SETTINGS: line $number is not NAME=VALUE: $line" ;;
        esac
        name=${line%%=*} value=${line#*=}
        case $value in
            \"*\") value=${value#\"} value=${value%\"} ;;
            \'*\') value=${value#\'} value=${value%\'} ;;
        esac
        case $names in
            *" $name "*) ;;
            *) warn "$SETTINGS: line $number sets $name, which is no setting: see 'nvidia-driver-host help'"; continue ;;
        esac
        eval "[ -n \"\$$name\" ] || $name=\$value"
    done < "$SETTINGS"
}

# seconds_of TEXT: 7d, 12h, 30m, 90; empty where it is none of these.
seconds_of() {
    case $1 in
        '' | *[!0-9dhm]* | [dhm]*) ;;
        *[dhm]*[0-9dhm]) ;;
        *d) echo $((${1%d} * 86400)) ;;
        *h) echo $((${1%h} * 3600)) ;;
        *m) echo $((${1%m} * 60)) ;;
        *) echo "$1" ;;
    esac
}

# need_settings: REGISTRY, REPOSITORY, KERNEL, ARCH, OS; refuses what cannot be meant.
need_settings() {
    read_settings
    read_host
    [ -n "$DRIVER_REGISTRY" ] || die 2 "DRIVER_REGISTRY is not set: write DRIVER_REGISTRY=registry.example/gpu to $SETTINGS"
    [ -n "$DRIVER_VERSION" ] || die 2 "DRIVER_VERSION is not set: write a version (580.173.02) or a branch (580) to $SETTINGS"
    for driver in $DRIVER_VERSION $DRIVER_FALLBACK; do
        case $driver in *[!0-9.]* | .* | *. | *..*) die 2 "'$driver' is neither a driver version (580.173.02) nor a branch (580): see $SETTINGS" ;; esac
    done
    case $DRIVER_VERSION in *' '*) die 2 "DRIVER_VERSION takes one version; others belong in DRIVER_FALLBACK: see $SETTINGS" ;; esac
    [ "${DRIVER_HOLD_DEADLINE:=7d}" = never ] || [ -n "$(seconds_of "$DRIVER_HOLD_DEADLINE")" ] ||
        die 2 "DRIVER_HOLD_DEADLINE=$DRIVER_HOLD_DEADLINE is none of 7d, 12h, 30m, never: see $SETTINGS"
    case ${DRIVER_BOOT_DEADLINE:=900} in *[!0-9]*) die 2 "DRIVER_BOOT_DEADLINE=$DRIVER_BOOT_DEADLINE is no number of seconds: see $SETTINGS" ;; esac
    [ -z "$DRIVER_KEY" ] || [ -r "$ROOT$DRIVER_KEY" ] || die 32 "DRIVER_KEY=$DRIVER_KEY cannot be read: nothing is loaded without it"
    [ -z "$DRIVER_CREDENTIALS" ] || [ -r "$ROOT$DRIVER_CREDENTIALS" ] || die 2 "DRIVER_CREDENTIALS=$DRIVER_CREDENTIALS cannot be read"
    for name in HTTPS_PROXY HTTP_PROXY NO_PROXY https_proxy http_proxy no_proxy; do
        eval "[ -z \"\$$name\" ] || export $name"
    done
    check_transport
}

# check_transport: PLAIN and REPOSITORY. Who can write on the wire could hand us any tag's digest.
check_transport() {
    PLAIN='' registry=${DRIVER_REGISTRY%/}
    case $registry in
        http://*) PLAIN=1 registry=${registry#http://} ;;
        https://*) registry=${registry#https://} ;;
    esac
    REPOSITORY=$registry/driver
    HOSTNAME_OF=${registry%%/*}
    case $HOSTNAME_OF in
        localhost | localhost:* | 127.* | '[::1]'*) PLAIN=1 ;;
        *)
            [ "$DRIVER_INSECURE" != 1 ] || PLAIN=1
            [ -z "$PLAIN" ] || [ "$DRIVER_INSECURE" = 1 ] ||
                die 32 "plain HTTP to $HOSTNAME_OF is refused: anybody on the way could choose the driver; use TLS, or set DRIVER_INSECURE=1"
            ;;
    esac
}

# take_turn: one of boot, prefetch, switch at a time; waits as long as a boot may take.
take_turn() {
    mkdir -p "$STATE" "$NOW" || die 1 "cannot make $STATE and $NOW"
    command -v flock > /dev/null || return 0
    exec 9> "$NOW/turn"
    flock -w 1800 9 || die 1 "another nvidia-driver-host has been at work for half an hour ($NOW/turn): see 'ps', end it, and try again"
}
