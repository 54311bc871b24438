# shellcheck shell=sh
# One FleetLock request on stdin, its answer on stdout (zincati: docs/development/fleetlock/protocol.md). The request does not say
# which kernel comes next; this host knows.

fleetlock() {
    carriage=$(printf '\r')
    IFS= read -r request || exit 0
    request=${request%"$carriage"}
    length=0 marked='' lines=0
    while IFS= read -r line; do
        line=${line%"$carriage"}
        [ -n "$line" ] || break
        lines=$((lines + 1))
        [ "$lines" -le 100 ] || { answer 400 bad_request 'more than 100 header lines'; return 0; }
        value=${line#*:}
        value=${value# }
        case $(printf '%s' "${line%%:*}" | tr '[:upper:]' '[:lower:]') in
            fleet-lock-protocol) marked=$value ;;
            content-length) length=$value ;;
        esac
    done
    case $request in
        'POST /v1/pre-reboot HTTP/1.'*) step=pre-reboot ;;
        'POST /v1/steady-state HTTP/1.'*) step=steady-state ;;
        *' /v1/pre-reboot HTTP/'* | *' /v1/steady-state HTTP/'*) answer 405 method_not_allowed 'only POST'; return 0 ;;
        *) answer 404 not_found 'only /v1/pre-reboot and /v1/steady-state'; return 0 ;;
    esac
    [ "$marked" = true ] || { answer 400 missing_header 'fleet-lock-protocol: true is missing'; return 0; }
    case $length in
        *[!0-9]* | '') length=0 ;;
        ??????*) answer 413 too_large 'the body is larger than 99999 bytes'; return 0 ;;
    esac
    limited 30 head -c "$length" > "$SCRATCH/body" || :
    group=$(member group)
    if [ -z "$(member id)" ] || [ -z "$group" ]; then
        answer 400 invalid_client_identity 'client_params.id and client_params.group must be texts that are not empty'
        return 0
    fi
    case $group in *[!a-zA-Z0-9.-]*) answer 400 invalid_client_identity 'client_params.group has other characters than a-z A-Z 0-9 . -'; return 0 ;; esac
    if [ "$step" = steady-state ]; then
        # Whatever the fleet's server says: without a 200 here zincati never asks for updates again.
        read_settings
        if [ -n "$DRIVER_FLEETLOCK_UPSTREAM" ]; then
            keep "$STATE/fleetlock-owed" "$(tr -d '\n' < "$SCRATCH/body")"
            pay_owed
        fi
        answer 200
        return 0
    fi
    # A bad setting must not keep the host from its updates; it speaks in the journal and in status.
    if ! (prepare; decide; printf '%s\n%s\n' "$DECISION" "$WHY" > "$SCRATCH/decided"); then
        warn 'this host cannot tell whether the next kernel has its driver (see above); not holding the reboot'
        printf 'go\n' > "$SCRATCH/decided"
    fi
    { IFS= read -r DECISION; IFS= read -r WHY || :; } < "$SCRATCH/decided"
    case $WHY in 'LETTING GO'*) say "$WHY" ;; esac
    if [ "$DECISION" = hold ]; then
        say "holding: $WHY"
        limited 30 systemctl start --no-block nvidia-driver-prefetch.service 2> /dev/null || :
        answer 423 driver_image_missing "$WHY"
        return 0
    fi
    read_settings
    if [ -n "$DRIVER_FLEETLOCK_UPSTREAM" ]; then pass_on pre-reboot; else answer 200; fi
}

# member NAME: a text of client_params.
member() { tr -d '\n' < "$SCRATCH/body" | sed -n "s/.*\"$1\"[[:space:]]*:[[:space:]]*\"\\([^\"]*\\)\".*/\\1/p"; }

# answer CODE [KIND VALUE]
answer() {
    case $1 in
        200) reason=OK ;; 400) reason='Bad Request' ;; 404) reason='Not Found' ;; 405) reason='Method Not Allowed' ;;
        413) reason='Content Too Large' ;; 423) reason=Locked ;; *) reason=Answer ;;
    esac
    content='{}'
    [ $# -lt 3 ] || content="{\"kind\": $(json_string "$2"), \"value\": $(json_string "$3")}"
    respond "$1" "$reason" "$content"
}

respond() {
    printf 'HTTP/1.1 %s %s\r\nContent-Type: application/json\r\nContent-Length: %s\r\nConnection: close\r\n\r\n%s' \
        "$1" "$2" "$(printf '%s' "$3" | wc -c | tr -d ' ')" "$3"
}

# ask_upstream STEP: CODE of the fleet's server (000: none), its body in $SCRATCH/upstream.
ask_upstream() {
    : > "$SCRATCH/upstream"
    CODE=$(limited 90 curl --silent --show-error --max-time 60 --output "$SCRATCH/upstream" --write-out '%{http_code}' \
        --header 'fleet-lock-protocol: true' --header 'Content-Type: application/json' --data-binary "@$SCRATCH/body" \
        "${DRIVER_FLEETLOCK_UPSTREAM%/}/v1/$1" 2> "$SCRATCH/curl") || CODE=000
    case $CODE in [1-5][0-9][0-9]) ;; *) CODE=000 ;; esac
}

pass_on() {
    ask_upstream "$1"
    if [ "$CODE" = 000 ]; then
        answer 502 upstream_unreachable "the fleet's FleetLock server $DRIVER_FLEETLOCK_UPSTREAM does not answer: $(tail -n 1 "$SCRATCH/curl")"
    else
        respond "$CODE" Answer "$(head -c 65536 "$SCRATCH/upstream")"
    fi
}

# pay_owed: gives the fleet's slot back; where its server did not take it, the next prefetch asks again.
pay_owed() {
    [ -n "$DRIVER_FLEETLOCK_UPSTREAM" ] && [ -s "$STATE/fleetlock-owed" ] || return 0
    cp "$STATE/fleetlock-owed" "$SCRATCH/body"
    ask_upstream steady-state
    case $CODE in
        # 423: another host holds the slot, so this one does not.
        2?? | 423) rm -f "$STATE/fleetlock-owed" ;;
        *) warn "the fleet's FleetLock server did not take its slot back ($CODE); asking again with the next prefetch" ;;
    esac
}
