# shellcheck shell=sh
# driver:index: what became of every pair. With DRIVER_KEY it is the only thing that is believed.

# fetch_index SECONDS: 0 where $STATE/index/index.json is what the registry has now; else a status of pull, or 32, and REASON.
fetch_index() {
    INDEX=$STATE/index/index.json
    fetched=0
    before=$(id_of "$REPOSITORY:index")
    pull "$REPOSITORY:index" "$1" || fetched=$?
    [ "$fetched" = 0 ] || { REASON="$REPOSITORY:index: $REASON"; return "$fetched"; }
    [ -z "$before" ] || [ "$before" = "$(id_of "$REPOSITORY:index")" ] || limited 60 "$ENGINE" rmi --force "$before" > /dev/null 2>&1 || :
    rm -rf "$SCRATCH/index"
    mkdir -p "$SCRATCH/index" "$STATE/index"
    copy_out "$REPOSITORY:index" /index.json "$SCRATCH/index/index.json" || { REASON="$REPOSITORY:index holds no index.json"; return 34; }
    if [ -n "$DRIVER_KEY" ]; then
        copy_out "$REPOSITORY:index" /index.json.sig "$SCRATCH/index/index.json.sig" ||
            { REASON="$REPOSITORY:index is not signed and DRIVER_KEY is set: nothing is taken from it"; return 32; }
        limited 60 openssl dgst -sha256 -verify "$ROOT$DRIVER_KEY" -signature "$SCRATCH/index/index.json.sig" "$SCRATCH/index/index.json" > /dev/null 2>&1 ||
            { REASON="$REPOSITORY:index is not signed by $DRIVER_KEY (or altered since): nothing is taken from it"; return 32; }
    fi
    serial=$(serial_of "$SCRATCH/index/index.json")
    [ -n "$serial" ] || { REASON="$REPOSITORY:index has no serial in its first line: it is no index of schema 1"; return 32; }
    first_line "$STATE/index/serial"
    case $LINE in '' | *[!0-9]*) LINE=0 ;; esac
    # Without a key anybody who can push can number as he likes; a lower one is then worth a line, not a refusal.
    if [ "$serial" -lt "$LINE" ]; then
        [ -z "$DRIVER_KEY" ] || { REASON="$REPOSITORY:index has serial $serial and $LINE was seen before: an old index is played back; nothing is taken from it"; return 32; }
        warn "$REPOSITORY:index has serial $serial, $LINE was seen before"
    fi
    cp "$SCRATCH/index/index.json" "$INDEX.new" && mv -f "$INDEX.new" "$INDEX" || die 1 "cannot write $INDEX: is the disk full?"
    keep "$STATE/index/read" "$(now)"
    keep "$STATE/index/serial" "$serial"
    if [ -n "$DRIVER_KEY" ]; then keep "$STATE/index/signed" "$DRIVER_KEY"; else rm -f "$STATE/index/signed"; fi
}

serial_of() { sed -n '1s/^{"schema":1,"serial":\([0-9]\{1,15\}\),.*/\1/p' "$1"; }

# index_entry KERNEL DRIVER: the line "<outcome> <digest or -> <version> <reason>" of the best entry; empty where the index has none.
# The pipeline writes one entry a line. ,"name":" cannot stand inside a JSON string, where a quote has a backslash before it.
index_entry() {
    [ -r "$STATE/index/index.json" ] || return 0
    qualified=$(tags_of "$1" '@' | sed '$d' | head -n 1)
    awk -v arch="$ARCH" -v kernel="$1" -v driver="$2" -v qualified="$qualified" -v plain="$(tag_text "$1")-" '
        function value(key,  place, rest, text, c) {
            place = index($0, ",\"" key "\":\"")
            if (!place) return ""
            rest = substr($0, place + length(key) + 5); text = ""
            while ((c = substr(rest, 1, 1)) != "\"" && rest != "") {
                if (c == "\\") { rest = substr(rest, 2); c = substr(rest, 1, 1); if (c == "n" || c == "t" || c == "r") c = " " }
                text = text c; rest = substr(rest, 2)
            }
            return text
        }
        function above(a, b,  x, y, n, m, i) {
            n = split(a, x, "."); m = split(b, y, ".")
            for (i = 1; i <= n || i <= m; i++) { if (x[i] + 0 > y[i] + 0) return 1; if (x[i] + 0 < y[i] + 0) return 0 }
            return 0
        }
        value("kernel") == kernel && value("arch") == arch {
            version = value("driver")
            if (version != driver && index(version, driver ".") != 1) next
            outcome = value("outcome"); name = qualified; sub(/@/, version, name)
            score = 1
            if (outcome == "built") score = name != "" && index($0, "\"" name "\"") ? 4 : index($0, "\"" plain version "\"") ? 3 : 2
            # Of a branch the newest that was built; of two builds for one kernel string the one for this OS.
            if ((score >= 2) != (best >= 2)) { if (score < best) next }
            else if (version == held) { if (score <= best) next }
            else if (!above(version, held)) next
            best = score; held = version; digest = value("digest"); see = value("see")
            line = outcome " " (digest != "" ? digest : "-") " " version " " value("reason") (see != "" ? " (" see ")" : "")
        }
        END { if (line != "") print line }' "$STATE/index/index.json"
}

# why_missing KERNEL DRIVER: one line for people: what the index says, and what to do.
why_missing() {
    entry=$(index_entry "$1" "$2")
    set -f
    # shellcheck disable=SC2086
    set -- "$1" "$2" $entry
    set +f
    kernel=$1 driver=$2 outcome=${3:-} version=${5:-}
    [ $# -lt 5 ] || shift 5
    reason=$*
    [ -r "$STATE/index/index.json" ] || { echo "no image for kernel $kernel and driver $driver, and no $REPOSITORY:index to say why"; return 0; }
    case $outcome in
        '') echo "no image for kernel $kernel and driver $driver: the index does not know this pair; ask whoever runs the pipeline to add it (versions.toml), or set another DRIVER_VERSION" ;;
        built) echo "no image for kernel $kernel and driver $driver: the index lists $version as built, the registry does not have it; it may be about to arrive" ;;
        pending) echo "no image for kernel $kernel and driver $version yet: pending: ${reason:-it is to be built}" ;;
        excluded) echo "no image for kernel $kernel and driver $version: excluded: ${reason:-no reason given}; set DRIVER_FALLBACK or another DRIVER_VERSION" ;;
        *) echo "no image for kernel $kernel and driver $version: $outcome: ${reason:-no reason given}; set DRIVER_FALLBACK or another DRIVER_VERSION" ;;
    esac
}
