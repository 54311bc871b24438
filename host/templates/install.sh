#!/bin/sh
# Installs nvidia-driver-host and its units on a running host (@OS@); again and again if you like. Made by 'doit host'.
#   sudo sh install.sh            install, and load the driver now
#   sudo sh install.sh --no-start install; the driver comes with the next boot
# The way back: nvidia-driver-host uninstall
# shellcheck disable=SC2043 # lists are filled in, of one word or of none as well
set -eu
[ "$(id -u)" = 0 ] || { echo "install.sh: only root can install units: use sudo" >&2; exit 2; }
start=1
case ${1:-} in
    '') ;;
    --no-start) start='' ;;
    *) echo "install.sh takes --no-start or nothing, got '$1'" >&2; exit 2 ;;
esac
changed=0
fresh=1
[ ! -e /etc/nvidia-driver/installed ] || fresh=''

# put PATH MODE [keep]: stdin, written whole, only where it differs.
put() {
    if [ "${3:-}" = keep ] && [ -e "$1" ]; then
        cat > /dev/null
        return 0
    fi
    mkdir -p "${1%/*}"
    cat > "$1.new"
    if cmp -s "$1.new" "$1" 2> /dev/null; then
        rm -f "$1.new"
    else
        mv -f "$1.new" "$1"
        changed=$((changed + 1))
    fi
    chmod "$2" "$1"
}

@FILES@
# Before anything is enabled: whether this host can be served at all. What has been written does nothing by itself.
@SCRIPT@ check || {
    status=$?
    [ -z "$fresh" ] || @SCRIPT@ uninstall || :
    exit "$status"
}
for unit in @MASKED@; do systemctl mask --now "$unit"; done
systemctl daemon-reload
for unit in @ENABLED@; do
    case $unit in
        *.service) systemctl enable --quiet "$unit" ;;
        *) systemctl enable --quiet --now "$unit" ;;
    esac
done
# Where grub.cfg reads the saved default already, there is nothing to make anew.
# shellcheck disable=SC2016
if command -v update-grub > /dev/null && [ -e /etc/default/grub.d/nvidia-driver.cfg ] && ! grep -qs 'default="${saved_entry}"' /boot/grub/grub.cfg; then
    update-grub > /dev/null 2>&1 || echo "install.sh: update-grub failed: run it by hand" >&2
fi
for argument in @ARGUMENTS@; do
    ! command -v rpm-ostree > /dev/null || rpm-ostree kargs --append-if-missing="$argument" > /dev/null ||
        echo "install.sh: add the kernel argument $argument by hand" >&2
done
echo "install.sh: $changed file(s) changed" >&2
[ -z "$start" ] || systemctl restart nvidia-driver.service
