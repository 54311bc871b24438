"""The commands of busybox that every image offers."""

from __future__ import annotations

from typing import Final

_APPLETS: Final = """
[ ash awk basename cat chmod chown chroot clear cmp cp cut date dd df diff dirname dmesg du echo egrep env expr
false fgrep find flock free getopt grep gunzip gzip head hostname id kill killall ln logger ls md5sum mkdir
mkfifo mknod mktemp more mount mountpoint mv nl nproc nsenter od paste pgrep pidof pivot_root pkill poweroff
printenv printf ps pwd readlink realpath reboot renice rev rm rmdir sed seq setsid sh sha256sum sleep sort split
stat stty sync sysctl tac tail tar tee test timeout touch tr true tty umount uname uniq unlink unshare uptime vi
wc wget which whoami xargs yes zcat
"""
APPLETS: Final = tuple(_APPLETS.split())
