# shellcheck shell=bash
# The local registry: Debian's docker-registry on loopback, its data in build/registry. Sourced by doit.sh.
#
# Two processes over one storage. The reader, at the port that images are named by, is for everybody on the machine and
# refuses whatever writes. The writer takes the password that is made at its start and stands in build/registry.env, which
# nobody but the caller can read: what a local user put there would be built into images by who runs this, often root.

REGISTRY_DATA=$ROOT/build/registry
REGISTRY_ENV=$ROOT/build/registry.env
REGISTRY_LOG=$REGISTRY_DATA/log

reader_pid() { pid_of "$REGISTRY_DATA/pid" "$REGISTRY_DATA/config.yml"; }
writer_pid() { pid_of "$REGISTRY_DATA/writer.pid" "$REGISTRY_DATA/writer.yml"; }

reader_config() { registry_config "$1" 'maintenance: {uploadpurging: {enabled: false}, readonly: {enabled: true}}'; }

writer_config() {
    registry_config "$1" 'delete: {enabled: true}'
    config+="auth: {htpasswd: {realm: build, path: '${REGISTRY_DATA//\'/\'\'}/htpasswd'}}"$'\n'
}

# registry_config PORT STORAGE: sets config; neither has a cache, so that each sees at once what the other has done
registry_config() {
    printf -v config '%s\n' 'version: 0.1' 'log: {level: warn, accesslog: {disabled: true}}' \
        "storage: {filesystem: {rootdirectory: '${REGISTRY_DATA//\'/\'\'}/data'}, $2}" \
        "http: {addr: '127.0.0.1:$1'}"
}

# has_config FILE: it holds config
has_config() {
    local text=''
    { IFS='' read -r -d '' text <"$1" || [ -n "$text" ]; } 2>/dev/null && [ "$text" = "$config" ]
}

# ensure_registry PORT ANSWERS: ours runs on PORT afterwards; ANSWERS is not empty where something listens there now
ensure_registry() {
    local port config
    if registry_is_ready "$1" "$2"; then return; fi
    stop_registry
    ! listens "$1" || die "$(taken "$1")"
    say "starting a registry at localhost:$1"
    mkdir -p "$REGISTRY_DATA"
    : >"$REGISTRY_LOG"
    reader_config "$1"
    printf %s "$config" >"$REGISTRY_DATA/config.yml"
    start_registry reader "$1" "$REGISTRY_DATA/pid" "$REGISTRY_DATA/config.yml"
    port=$(free_port "$(sed -n "s/^http: {addr: '127.0.0.1:\([0-9]*\)'}$/\1/p" "$REGISTRY_DATA/writer.yml" 2>/dev/null)")
    writer_config "$port"
    printf %s "$config" >"$REGISTRY_DATA/writer.yml"
    make_password "$1" "$port"
    start_registry writer "$port" "$REGISTRY_DATA/writer.pid" "$REGISTRY_DATA/writer.yml"
    printf 'PID=%s\n' "$(writer_pid)" >>"$REGISTRY_ENV.new"
    mv "$REGISTRY_ENV.new" "$REGISTRY_ENV"
}

# registry_is_ready PORT ANSWERS: both processes run as this checkout would start them
registry_is_ready() {
    local registry='' writer='' name value config
    if [ -z "$2" ] || ! reader_pid >/dev/null || ! writer_pid >/dev/null || ! [ -e "$REGISTRY_ENV" ]; then return 1; fi
    [ -r "$REGISTRY_ENV" ] || die "build/registry.env is another user's, who started the registry: run it as that user, or" \
        "let that user end the registry by './doit.sh down'"
    while IFS='=' read -r name value; do
        case $name in REGISTRY) registry=$value ;; WRITER) writer=${value##*:} ;; esac
    done <"$REGISTRY_ENV"
    [ "$registry" = "localhost:$1" ] && reader_config "$1" && has_config "$REGISTRY_DATA/config.yml" &&
        writer_config "$writer" && has_config "$REGISTRY_DATA/writer.yml" && listens "$writer"
}

# start_registry reader|writer PORT PIDFILE CONFIG: and see that it is this process which has the port
start_registry() {
    spawn user "$3" "$REGISTRY_LOG" '' docker-registry serve "$4"
    if ! wait_until 10 "$1_pid" >/dev/null || ! wait_until 30 has_settled "$1_pid" "$2" || ! "$1_pid" >/dev/null; then
        tail -n 5 "$REGISTRY_LOG" >&2
        stop_registry
        die "the registry did not start: see build/registry/log, or set DRIVER_REGISTRY to one that runs"
    fi
}

# has_settled PID_FUNCTION PORT: the process has its port, or has ended
has_settled() {
    local pid
    pid=$("$1") || return 0
    serves "$pid" "$2"
}

# make_password PORT WRITERS_PORT: a new one, for the writer (htpasswd) and for the pipeline (build/registry.env.new)
make_password() {
    local password salt hash
    password=$(random_hex 32)
    salt=$(random_hex 16)
    # docker-registry takes bcrypt alone. Debian has it in libcrypt, of which perl, essential there, makes a function; nobody
    # guesses these 256 bits, so the lowest cost does, which each request of a run pays.
    hash=$(printf '%s\n' "$password" "\$2y\$04\$${salt:0:21}u" | perl -e 'chomp(my ($w, $s) = <STDIN>); print crypt($w, $s) // ""')
    case $hash in
        "\$2y\$04\$"?????*) ;;
        *) die "this machine's perl makes no bcrypt password for the registry: set DRIVER_REGISTRY to a registry that runs" ;;
    esac
    rm -f "$REGISTRY_DATA/htpasswd" "$REGISTRY_ENV.new"
    (
        umask 077
        printf 'build:%s\n' "$hash" >"$REGISTRY_DATA/htpasswd"
        printf '%s\n' "REGISTRY=localhost:$1" "WRITER=127.0.0.1:$2" 'USER=build' "PASSWORD=$password" >"$REGISTRY_ENV.new"
    )
}

random_hex() { od -An -v -tx1 -N"$1" /dev/urandom | tr -d ' \n'; }

# free_port FORMER: FORMER where nothing listens there, else one below those that the kernel gives to connections
free_port() {
    local port=${1:-0} left=1000 # 0: none, the kernel would choose
    while [ "$port" -eq 0 ] || listens "$port"; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || die "no port of loopback from 20000 to 31999 is free for the registry: see what listens there"
        port=$((20000 + RANDOM % 12000))
    done
    printf '%s\n' "$port"
}

# refuse_taken PORT ANSWERS: before anything is installed
refuse_taken() { [ -z "$2" ] || reader_pid >/dev/null || die "$(taken "$1")"; }

taken() {
    printf '%s' "port $1 is taken by a program that this checkout did not start: end it, or have another port by" \
        " registry = \"localhost:<port>\" below [settings] in versions.toml (add the table where it is missing), or set DRIVER_REGISTRY to a registry that runs"
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

stop_registry() {
    local pid
    if pid=$(reader_pid); then end "$pid" 10; fi
    if pid=$(writer_pid); then end "$pid" 10; fi
    rm -f "$REGISTRY_DATA/pid" "$REGISTRY_DATA/writer.pid" "$REGISTRY_DATA/htpasswd" "$REGISTRY_ENV" "$REGISTRY_ENV.new"
}
