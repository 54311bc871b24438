# shellcheck shell=sh
# Programs that change the system, taken from PATH even where the shell is a busybox that prefers its own applets:
# kmod's insmod says why a module was refused, the applet only that it was.

# outside NAME ARGUMENT…: fails with 127 where PATH has no such program.
outside() {
    outside=''
    rest=$PATH:
    while [ -n "$rest" ] && [ -z "$outside" ]; do
        [ ! -x "${rest%%:*}/$1" ] || outside=${rest%%:*}/$1
        rest=${rest#*:}
    done
    [ -n "$outside" ] || { say "$1 is not in the image"; return 127; }
    shift
    "$outside" "$@"
}

insmod() { outside insmod "$@"; }
rmmod() { outside rmmod "$@"; }
modprobe() { outside modprobe "$@"; }
modinfo() { outside modinfo "$@"; }
dmesg() { outside dmesg "$@"; }
mknod() { outside mknod "$@"; }
mount() { outside mount "$@"; }
umount() { outside umount "$@"; }
