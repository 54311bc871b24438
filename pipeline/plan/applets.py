"""The commands of busybox that every image offers: of those that Debian's busybox has, which the base's build checks."""

from __future__ import annotations

from typing import Final

_APPLETS: Final = """
[ ash awk basename cat chmod chown chroot clear cmp cp cut date dd df diff dirname dmesg du echo egrep env
expr false fgrep find free getopt grep gunzip gzip head hostname id kill killall ln logger ls md5sum mkdir
mkfifo mknod mktemp more mount mv nl nproc nsenter od paste pidof pivot_root poweroff printf ps pwd readlink
realpath reboot renice rev rm rmdir sed seq setsid sh sha256sum sleep sort stat stty sync sysctl tac tail tar
tee test timeout touch tr true tty umount uname uniq unlink unshare uptime vi wc wget which whoami xargs yes
zcat
"""
APPLETS: Final = tuple(_APPLETS.split())
