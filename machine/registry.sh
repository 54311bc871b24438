# shellcheck shell=bash
# The local registry: Debian's docker-registry on loopback, its data in build/registry. Sourced by doit.sh.

REGISTRY_DATA=$ROOT/build/registry
REGISTRY_CONFIG=$REGISTRY_DATA/config.yml
REGISTRY_LOG=$REGISTRY_DATA/log

registry_pid() { pid_of "$REGISTRY_DATA/pid" "$REGISTRY_CONFIG"; }

registry_config() {
    local data=$REGISTRY_DATA/data
    printf '%s\n' 'version: 0.1' 'log: {level: warn, accesslog: {disabled: true}}' \
        "storage: {filesystem: {rootdirectory: '${data//\'/\'\'}'}, delete: {enabled: true}}" \
        "http: {addr: '127.0.0.1:$1'}"
}

# ensure_registry PORT ANSWERS: ours runs on PORT afterwards; ANSWERS is not empty where something listens there now
ensure_registry() {
    local config pid
    config=$(registry_config "$1")
    if pid=$(registry_pid); then
        if [ -n "$2" ] && [ "$(cat "$REGISTRY_CONFIG")" = "$config" ]; then return; fi
        end "$pid" 10
        ! listens "$1" || die "$(taken "$1")"
    fi
    say "starting a registry at localhost:$1"
    mkdir -p "$REGISTRY_DATA"
    printf '%s\n' "$config" >"$REGISTRY_CONFIG"
    : >"$REGISTRY_LOG"
    spawn user "$REGISTRY_DATA/pid" "$REGISTRY_LOG" docker-registry serve "$REGISTRY_CONFIG"
    if ! wait_until 30 listens "$1" || ! registry_pid >/dev/null; then
        tail -n 5 "$REGISTRY_LOG" >&2
        die "the registry did not start: see build/registry/log, or set DRIVER_REGISTRY to one that runs"
    fi
}

# refuse_taken PORT ANSWERS: before anything is installed
refuse_taken() { [ -z "$2" ] || registry_pid >/dev/null || die "$(taken "$1")"; }

taken() {
    printf '%s' "port $1 is taken by a program that this checkout did not start: end it, or have another port by" \
        " registry = \"localhost:<port>\" below [settings] in versions.toml, or set DRIVER_REGISTRY to a registry that runs"
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

stop_registry() {
    local pid
    if pid=$(registry_pid); then end "$pid" 10; fi
    rm -f "$REGISTRY_DATA/pid"
}
