# Made by 'doit render' from dockerfiles/base.Dockerfile.j2 and versions.lock. A file edited by hand is never built.
# The runtime base of every image (amd64): a shell, libc, kmod, zstd. Packages are unpacked, never configured.
FROM driver-toolchain:0c2404e69ce0fde9 AS unpack
COPY debs/ /in/
RUN set -eu; cd /in; printf '%s\n' \
    '84263d56814cd1a07f4a1ec1f33d3a9a805bb56c61d43c4eb9d13ca69bad52bb  busybox_1.0-1_amd64.deb' \
    '9454d6c1a3fe7c066e25df812764308ccf491b2fd31c26b68326b23501873061  kmod_1.0-1_amd64.deb' \
    | sha256sum --check --strict --quiet
RUN set -eu; mkdir -p /out/usr/bin /out/usr/sbin /out/usr/lib /out/usr/lib64 /out/etc /out/tmp /out/proc /out/sys /out/dev /out/run /out/host \
      /out/var/tmp /out/var/lib /out/var/log /out/root /out/opt /out/mnt /out/lib/firmware.d; \
    rmdir /out/lib/firmware.d /out/lib; \
    ln -s usr/bin /out/bin; ln -s usr/sbin /out/sbin; ln -s usr/lib /out/lib; ln -s usr/lib64 /out/lib64; \
    chmod 1777 /out/tmp /out/var/tmp; chmod 0700 /out/root; \
    dpkg-deb --fsys-tarfile /in/busybox_1.0-1_amd64.deb | tar -C /out --keep-directory-symlink -xf -; \
    dpkg-deb --fsys-tarfile /in/kmod_1.0-1_amd64.deb | tar -C /out --keep-directory-symlink -xf -; \
    rm -rf /out/usr/share /out/usr/lib/*/gconv /out/usr/lib/*/perl-base /out/usr/lib/*/ossl-modules /out/usr/lib/*/engines-3 \
      /out/etc/init.d /out/etc/cron* /out/var/cache /out/var/lib/dpkg /out/usr/lib/tmpfiles.d /out/usr/lib/systemd \
      /out/usr/lib/initramfs-tools /out/usr/lib/udev
RUN set -eu; for applet in [ ash awk basename cat chmod chown chroot clear cmp cp cut date dd df diff dirname dmesg du echo egrep env expr false fgrep find free getopt grep gunzip gzip head hostname id kill killall ln logger ls md5sum mkdir mkfifo mknod mktemp more mount mv nl nproc nsenter od paste pidof pivot_root poweroff printf ps pwd readlink realpath reboot renice rev rm rmdir sed seq setsid sh sha256sum sleep sort stat stty sync sysctl tac tail tar tee test timeout touch tr true tty umount uname uniq unlink unshare uptime vi wc wget which whoami xargs yes zcat; do \
      test -e /out/usr/bin/$applet || test -e /out/usr/sbin/$applet || ln -s busybox /out/usr/bin/$applet; \
    done; \
    printf 'root:x:0:0:root:/root:/bin/sh\n' > /out/etc/passwd; printf 'root:x:0:\n' > /out/etc/group; \
    printf '/usr/local/nvidia/lib64\n' > /out/etc/ld.so.conf; \
    chroot /out /bin/sh -c 'kmod --version && zstd --version && sh -c true'; \
    chroot /out busybox --list > /in/has; for applet in [ ash awk basename cat chmod chown chroot clear cmp cp cut date dd df diff dirname dmesg du echo egrep env expr false fgrep find free getopt grep gunzip gzip head hostname id kill killall ln logger ls md5sum mkdir mkfifo mknod mktemp more mount mv nl nproc nsenter od paste pidof pivot_root poweroff printf ps pwd readlink realpath reboot renice rev rm rmdir sed seq setsid sh sha256sum sleep sort stat stty sync sysctl tac tail tar tee test timeout touch tr true tty umount uname uniq unlink unshare uptime vi wc wget which whoami xargs yes zcat; do \
      test ! -L /out/usr/bin/$applet || test ! /out/usr/bin/$applet -ef /out/usr/bin/busybox || grep -qxF $applet /in/has; done; \
    find /out -exec touch -h -d @1795161600 {} +
FROM scratch
COPY --from=unpack /out/ /
ENV PATH=/usr/local/nvidia/bin:/usr/sbin:/usr/bin:/sbin:/bin
