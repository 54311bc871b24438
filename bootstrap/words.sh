# shellcheck shell=bash
# What the words of the command line mean, as far as that can be said without Python. Sourced by doit.sh.

# doit's own commands; pyproject.toml names this project's.
DOIT_COMMANDS='clean forget help ignore info list reset-dep run strace tabcompletion'

commands() {
    # shellcheck disable=SC2086
    printf '%s\n' down $DOIT_COMMANDS
    sed -n '/^\[tool\.doit\.plugins\.command\]/,/^$/s/^\([a-z-]*\) = .*/\1/p' "$ROOT/pyproject.toml"
}

tasks() { sed -n 's/^def task_\([A-Za-z0-9_]*\)(.*/\1/p' "$ROOT/dodo.py"; }

is_command() { commands | grep -qxF -e "$1"; }

# are_tasks [WORD...]: each is the very name of a task, or there is none
are_tasks() {
    local word known=''
    for word in "$@"; do
        known=${known:-$(tasks)}
        grep -qxF -e "$word" <<<"$known" || return 1
    done
}

# refuse_unknown [WORD...]: ends the program where the first can be no command, task, pattern or option
refuse_unknown() {
    local known close
    case ${1--} in '' | -* | *[:*?=[]*) return ;; esac # doit's to judge
    known=$(commands && tasks)
    ! grep -qxF -e "$1" <<<"$known" || return 0
    close=$(closest "$1" <<<"$known")
    [ -z "$close" ] || close="did you mean '$close'? "
    refuse "'${1//[^[:print:]]/?}' is neither a command nor a task: $close'./doit.sh help' names the commands"
}

# closest WORD: the line of stdin that two slips at most make WORD of: a letter more, less, another, or two that changed places
closest() {
    word=$1 awk '
        function least(a, b) { return a < b ? a : b }
        function slips(a, b,    i, j, d, cost) {
            for (i = 0; i <= length(a); i++) d[i, 0] = i
            for (j = 0; j <= length(b); j++) d[0, j] = j
            for (i = 1; i <= length(a); i++) for (j = 1; j <= length(b); j++) {
                cost = substr(a, i, 1) != substr(b, j, 1)
                d[i, j] = least(least(d[i - 1, j], d[i, j - 1]) + 1, d[i - 1, j - 1] + cost)
                if (i > 1 && j > 1 && substr(a, i, 1) == substr(b, j - 1, 1) && substr(a, i - 1, 1) == substr(b, j, 1))
                    d[i, j] = least(d[i, j], d[i - 2, j - 2] + 1)
            }
            return d[length(a), length(b)]
        }
        BEGIN { fewest = 3 }
        { found = slips(ENVIRON["word"], $0) }
        found < fewest && found < length($0) - 1 { fewest = found; best = $0 }
        END { if (best) print best }'
}

# asks_for_help [WORD...]: one of them does
asks_for_help() {
    local word
    for word in "$@"; do
        case $word in -h | --help) return ;; esac
    done
    return 1
}

# usage: what the head of doit.sh says
usage() {
    sed -n '4,/^[^#]/s/^# \{0,1\}//p' "$ROOT/doit.sh"
    printf 'Commands: %s\n' "$(commands | sort -u | paste -s -d ' ')"
}
