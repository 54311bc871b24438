# shellcheck shell=sh
# The container engine: podman or docker, by the words that both know.

# choose_engine: ENGINE, which is asked nothing.
choose_engine() {
    case ${DRIVER_RUNTIME:-auto} in
        podman | docker) ENGINE=${DRIVER_RUNTIME} ;;
        auto | '') if command -v podman > /dev/null; then ENGINE=podman; else ENGINE=docker; fi ;;
        *) die 2 "DRIVER_RUNTIME=$DRIVER_RUNTIME is none of auto, podman, docker: see $SETTINGS" ;;
    esac
    command -v "$ENGINE" > /dev/null || die 34 "$ENGINE is not installed: install podman or docker, or set DRIVER_RUNTIME"
}

# need_engine: ENGINE, which answers. A daemon that is still starting is waited for, two minutes at most.
need_engine() {
    choose_engine
    [ -n "$ROOT" ] || [ "$(id -u)" = 0 ] || die 2 "only root can load a driver: use sudo"
    waited=0
    until limited 60 "$ENGINE" version > "$SCRATCH/engine" 2>&1; do
        [ "$waited" -lt 120 ] || die 34 "$ENGINE does not answer: $(tail -n 1 "$SCRATCH/engine")"
        pause 5
        waited=$((waited + 5))
    done
    [ "$ENGINE" = docker ] || return 0
    # What the daemon takes without TLS is its own setting, which we cannot overrule, only refuse.
    [ -z "$PLAIN" ] || return 0
    # shellcheck disable=SC2016
    for name in $(limited 60 docker info --format '{{range $name, $index := .RegistryConfig.IndexConfigs}}{{if not $index.Secure}}{{$name}} {{end}}{{end}}' 2> /dev/null); do
        [ "$name" != "$HOSTNAME_OF" ] ||
            die 32 "docker takes $name without TLS (insecure-registries in daemon.json): take it out there, or set DRIVER_INSECURE=1"
    done
}

# logins: docker's client takes a directory, podman a file.
logins() {
    mkdir -p "$SCRATCH/logins"
    [ -e "$SCRATCH/logins/config.json" ] || (umask 077 && cat "$ROOT$DRIVER_CREDENTIALS" > "$SCRATCH/logins/config.json")
}

# pull REFERENCE SECONDS: 0 here, 30 no such image, 31 no answer, 33 refused; REASON holds the engine's own line, PULLED the digest.
pull() {
    reference=$1 seconds=$2 PULLED='' status=0
    set --
    if [ "$ENGINE" = podman ]; then
        if [ -n "$PLAIN" ]; then set -- --tls-verify=false; else set -- --tls-verify=true; fi
        [ -z "$DRIVER_CREDENTIALS" ] || set -- "$@" --authfile "$ROOT$DRIVER_CREDENTIALS"
        set -- pull "$@" "$reference"
    elif [ -n "$DRIVER_CREDENTIALS" ]; then
        logins
        set -- --config "$SCRATCH/logins" pull "$reference"
    else
        set -- pull "$reference"
    fi
    limited "$seconds" "$ENGINE" "$@" > "$SCRATCH/pull" 2>&1 || status=$?
    if [ "$status" = 0 ]; then
        PULLED=$(sed -n 's/^Digest: \(sha256:[0-9a-f]\{64\}\).*/\1/p' "$SCRATCH/pull")
        [ -n "$PULLED" ] || PULLED=$(limited 60 "$ENGINE" image inspect --format '{{.Digest}}' "$reference" 2> /dev/null) || PULLED=''
        case $reference in *@*) PULLED=${reference#*@} ;; esac
        is_digest "$PULLED" || { REASON="$ENGINE pulled $reference and does not tell its digest"; return 34; }
        return 0
    fi
    REASON=$(grep -v '^[[:space:]]*$' "$SCRATCH/pull" | tail -n 1 | cut -c 1-300)
    [ "$status" != 124 ] || REASON="the pull of $reference took more than $seconds s"
    if grep -qiE 'no space left' "$SCRATCH/pull"; then
        return 34
    elif grep -qiE 'unauthorized|authentication required|no basic auth credentials|access denied|is denied|403 ' "$SCRATCH/pull"; then
        return 33
    elif grep -qiE 'manifest unknown|manifest for .* not found|name unknown|repository name not known' "$SCRATCH/pull"; then
        # Only the registry's own "there is none" counts as that; everything else may be a fault on the way.
        return 30
    fi
    return 31
}

is_digest() { case $1 in sha256:*[!0-9a-f]* | *' '*) return 1 ;; sha256:*) [ ${#1} = 71 ] ;; *) return 1 ;; esac; }

# image_of DIGEST: IMAGE, the engine's own id of an image that is here; run by it nothing is ever pulled.
image_of() {
    IMAGE=$(id_of "$REPOSITORY@$1")
    [ -n "$IMAGE" ]
}

# id_of REFERENCE: nothing where it is not here.
id_of() { limited 60 "$ENGINE" image inspect --format '{{.Id}}' "$1" 2> /dev/null || :; }

label_of() { limited 60 "$ENGINE" image inspect --format "{{index .Config.Labels \"io.coreos-nvidia.$2\"}}" "$1" 2> /dev/null || :; }

# copy_out IMAGE FROM TO: from an image without running it.
copy_out() {
    container=$(limited 60 "$ENGINE" create "$1" none 2> "$SCRATCH/create") || { REASON=$(tail -n 1 "$SCRATCH/create"); return 1; }
    copied=0
    limited 120 "$ENGINE" cp "$container:$2" "$3" > /dev/null 2>&1 || copied=$?
    limited 60 "$ENGINE" rm -f "$container" > /dev/null 2>&1 || :
    return "$copied"
}

# What a container that takes several steps runs. A volume (a copy, which a sick disk may hold up) or a specification that fails is told;
# a driver that does not load ends it.
# shellcheck disable=SC2016
STEPS='for step; do
    status=0
    if [ "$step" = volume ]; then timeout 600 nvidia-driver volume; else nvidia-driver "$step"; fi || status=$?
    [ "$status" = 0 ] || [ "$step" != load ] || exit "$status"
    [ "$status" = 0 ] || echo "nvidia-driver: warning: $step ended $status (the line above says why); going on" >&2
done'

# in_image IMAGE SECONDS STEP…: nvidia-driver of the image on this host, every step in one container: the start of one takes longer
# than most steps. Status of the step that counts, REASON its last line, all of it said.
# Under SELinux a container's own type may neither insert modules nor make nodes: label=disable is what podman and docker both know.
in_image() {
    image=$1 seconds=$2 told=$*
    shift 2
    mkdir -p "$STATE" "$ROOT/var/lib/nvidia-docker" "$ROOT/run/cdi" "$ROOT/run/nvidia-persistenced" "$ROOT/run/nvidia-fabricmanager"
    handed=''
    for name in $HANDED; do
        eval "[ -z \"\$$name\" ] || export $name"
        eval "[ -z \"\$$name\" ] || handed=\"\$handed --env $name\""
    done
    if [ $# -gt 1 ]; then set -- --entrypoint sh "$image" -c "$STEPS" nvidia-driver "$@"; else set -- "$image" "$1"; fi
    [ -z "${QUICK:-}" ] || set -- --pull never "$@"
    status=0
    contain "$@" || status=$?
    if is_engines "$status" && grep -qE 'already in use|[Cc]onflict' "$SCRATCH/said"; then
        # A boot that was cut short left it.
        limited 60 "$ENGINE" rm -f nvidia-driver-host > /dev/null 2>&1 || :
        status=0
        contain "$@" || status=$?
    fi
    REASON=$(sed -n -e '/[^[:space:]]/h' -e '$ { g' -e 's/^nvidia-driver: //' -e p -e '}' "$SCRATCH/said" | cut -c 1-600)
    is_engines "$status" && [ -n "${QUICK:-}" ] || sed 's/^/  /' "$SCRATCH/said" >&2
    [ "$status" != 124 ] || REASON="'nvidia-driver ${told#* * }' did not end within $seconds s"
    return "$status"
}

# is_engines STATUS: whether it is the engine's own and says that nothing ran.
is_engines() { case $1 in 125 | 126 | 127) return 0 ;; *) return 1 ;; esac; }

# contain WORD…: one container of ours, by the words of run; what it says in $SCRATCH/said.
contain() {
    # shellcheck disable=SC2086
    limited "$seconds" "$ENGINE" run --rm --log-driver none --name nvidia-driver-host --net none --pid host --cap-drop ALL \
        --cap-add SYS_MODULE --cap-add MKNOD --cap-add SYSLOG --cap-add CHOWN --cap-add FOWNER --cap-add DAC_OVERRIDE --cap-add SYS_PTRACE \
        --cap-add KILL --security-opt label=disable --security-opt apparmor=unconfined --security-opt seccomp=unconfined \
        --device-cgroup-rule 'c *:* rwm' --volume /:/host:ro --volume /sys:/sys --volume /dev:/dev \
        --volume "$STATE:/host/var/lib/nvidia-driver" --volume "$ROOT/var/lib/nvidia-docker:/host/var/lib/nvidia-docker" \
        --volume "$ROOT/run/cdi:/run/cdi" --volume "$ROOT/run/nvidia-persistenced:/run/nvidia-persistenced" \
        --volume "$ROOT/run/nvidia-fabricmanager:/run/nvidia-fabricmanager" \
        --env HOST_ROOT=/host $handed "$@" > "$SCRATCH/said" 2>&1
}
