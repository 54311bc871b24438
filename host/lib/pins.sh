# shellcheck shell=sh
# Which digest a kernel gets. A tag is asked once; what it named then is what loads, until a prefetch asks again.

# Pins lie in $STATE/pins/<kernel>-<driver as in the settings>, a line "<digest> <signed or tag> <version> <tag>".
# The pin of what last worked for a kernel lies in $STATE/good/<kernel>.

pin_file() { printf '%s/pins/%s-%s\n' "$STATE" "$(tag_text "$1")" "$2"; }
good_file() { printf '%s/good/%s\n' "$STATE" "$(tag_text "$1")"; }

# read_pin FILE: PIN, HOW, VERSION, TAG; fails where there is none that may be used.
read_pin() {
    PIN='' HOW='' VERSION='' TAG=''
    first_line "$1"
    # shellcheck disable=SC2086
    set -- $LINE
    is_digest "${1:-}" || return 1
    # A pin from before the key was set was never checked against it.
    [ -z "$DRIVER_KEY" ] || [ "${2:-}" = signed ] || return 1
    PIN=$1 HOW=${2:-tag} VERSION=${3:--} TAG=${4:-}
}

# write_pin KERNEL DRIVER DIGEST HOW VERSION TAG: tells where a tag has moved.
write_pin() {
    file=$(pin_file "$1" "$2")
    ! read_pin "$file" || [ "$PIN" = "$3" ] ||
        say "driver:$6 moved: it was $PIN ($VERSION), it is $3 ($5); the new one is taken at the next boot or switch"
    PIN=$3 HOW=$4 VERSION=$5 TAG=$6
    keep "$file" "$PIN $HOW $VERSION $TAG"
}

# resolve KERNEL DRIVER SECONDS: asks the registry, pulls, and pins; 0, or a status of pull, or 32, with REASON.
resolve() {
    if [ -n "$DRIVER_KEY" ]; then
        [ -n "${FETCHED:-}" ] || { FETCHED=0; fetch_index "$3" || FETCHED=$?; WHY_INDEX=$REASON; }
        [ "$FETCHED" = 0 ] || { REASON=$WHY_INDEX; [ "$FETCHED" != 30 ] || REASON="$REASON; with DRIVER_KEY nothing is loaded without it"; return "$FETCHED"; }
        entry=$(index_entry "$1" "$2")
        case $entry in built\ sha256:*) ;; *) REASON=$(why_missing "$1" "$2"); return 30 ;; esac
        entry=${entry#built }
        digest=${entry%% *}
        version=${entry#* }
        version=${version%% *}
        is_digest "$digest" || { REASON="the index names no digest for $1 and $2"; return 32; }
        pull "$REPOSITORY@$digest" "$3" || return $?
        write_pin "$1" "$2" "$digest" signed "$version" "$(tag_text "$1")-$version"
        return 0
    fi
    for tag in $(tags_of "$1" "$2"); do
        pulled=0
        pull "$REPOSITORY:$tag" "$3" || pulled=$?
        case $pulled in
            0) ;;
            30) continue ;;
            *) return "$pulled" ;;
        esac
        # Once a tag has moved, podman knows an image by its digest only where it was pulled by that; nothing comes twice.
        [ "$ENGINE" != podman ] || pull "$REPOSITORY@$PULLED" "$3" || return $?
        version=$(label_of "$REPOSITORY:$tag" driver)
        write_pin "$1" "$2" "$PULLED" tag "${version:--}" "$tag"
        return 0
    done
    return 30
}

# obtain KERNEL DRIVER UNTIL: the pinned image, from here if it is here, else from the registry until that time. Status as resolve.
obtain() {
    wait_for=5 asked=''
    while :; do
        left=$(($3 - $(now)))
        came=0
        if read_pin "$(pin_file "$1" "$2")"; then
            ! image_of "$PIN" || return 0
            [ -z "$asked" ] || [ "$left" -gt 0 ] || return 31
            asked=1
            pull "$REPOSITORY@$PIN" "$(pull_time "$left")" || came=$?
            [ "$came" != 30 ] ||
                REASON="$REPOSITORY:$TAG was pinned as $PIN, which the registry no longer has; 'nvidia-driver-host prefetch' takes what the tag is now"
        else
            [ -z "$asked" ] || [ "$left" -gt 0 ] || return 31
            asked=1 FETCHED=''
            resolve "$1" "$2" "$(pull_time "$left")" || came=$?
        fi
        case $came in
            0) image_of "$PIN" && return 0 || { REASON="$ENGINE pulled $PIN and does not show it"; return 34; } ;;
            31) ;;
            *) return "$came" ;;
        esac
        left=$(($3 - $(now)))
        [ "$left" -gt 0 ] || return 31
        [ "$wait_for" -le "$left" ] || wait_for=$left
        say "$REASON; asking again in $wait_for s ($left s left)"
        pause "$wait_for"
        wait_for=$((wait_for * 2))
        [ "$wait_for" -le 60 ] || wait_for=60
    done
}

# pull_time LEFT: one pull may take what is left, but a try after the deadline still gets half a minute.
pull_time() { if [ "$1" -gt 30 ]; then echo "$1"; else echo 30; fi; }

# acceptable DRIVER VERSION: a fallback below the last driver that worked is no fallback unless the administrator says so.
acceptable() {
    [ "$1" != "$DRIVER_VERSION" ] && [ "$DRIVER_ALLOW_OLDER" != 1 ] || return 0
    first_line "$STATE/last-good"
    [ -n "$LINE" ] && older "$2" "${LINE%% *}" || return 0
    REASON="fallback $2 is older than ${LINE%% *}, which worked last: set DRIVER_ALLOW_OLDER=1 to take it all the same"
    return 1
}

# here_for KERNEL: whether an image that would be loaded is here, without asking anybody. IMAGE, PIN, VERSION.
here_for() {
    for driver in $DRIVER_VERSION $DRIVER_FALLBACK; do
        read_pin "$(pin_file "$1" "$driver")" || continue
        image_of "$PIN" && acceptable "$driver" "$VERSION" && return 0
    done
    return 1
}
