# Made by 'doit render' from dockerfiles/base.Dockerfile.j2 and versions.lock. A file edited by hand is never built.
# The runtime base of every image (arm64): a shell, libc, kmod, zstd. Packages are unpacked, never configured.
FROM driver-toolchain:d41e2a5f94183a15 AS unpack
COPY debs/ /in/
RUN set -eu; cd /in; printf '%s\n' \
    'a2d35f3f46df400916bbc27ba6326efc8e7d459ac99835dd24e98ce39b08108e  busybox_1.0-1_arm64.deb' \
    '142011a865b24bf650d5c5a098f72fadf692a7904de66231e27c136b002c334f  kmod_1.0-1_arm64.deb' \
    | sha256sum --check --strict --quiet
RUN set -eu; mkdir -p /out/usr/bin /out/usr/sbin /out/usr/lib /out/usr/lib64 /out/etc /out/tmp /out/proc /out/sys /out/dev /out/run /out/host \
      /out/var/tmp /out/var/lib /out/var/log /out/root /out/opt /out/mnt /out/lib/firmware.d; \
    rmdir /out/lib/firmware.d /out/lib; \
    ln -s usr/bin /out/bin; ln -s usr/sbin /out/sbin; ln -s usr/lib /out/lib; ln -s usr/lib64 /out/lib64; \
    chmod 1777 /out/tmp /out/var/tmp; chmod 0700 /out/root; \
    dpkg-deb --fsys-tarfile /in/busybox_1.0-1_arm64.deb | tar -C /out --keep-directory-symlink -xf -; \
    dpkg-deb --fsys-tarfile /in/kmod_1.0-1_arm64.deb | tar -C /out --keep-directory-symlink -xf -; \
    rm -rf /out/usr/share /out/usr/lib/*/gconv /out/usr/lib/*/perl-base /out/usr/lib/*/ossl-modules /out/usr/lib/*/engines-3 \
      /out/etc/init.d /out/etc/cron* /out/var/cache /out/var/lib/dpkg /out/usr/lib/tmpfiles.d /out/usr/lib/systemd \
      /out/usr/lib/initramfs-tools /out/usr/lib/udev
RUN set -eu; for applet in [ ash awk basename cat chmod chown chroot clear cmp cp cut date dd df diff dirname dmesg du echo egrep env expr false fgrep find free getopt grep gunzip gzip head hostname id kill killall ln logger ls md5sum mkdir mkfifo mknod mktemp more mount mv nl nproc nsenter od paste pidof pivot_root poweroff printf ps pwd readlink realpath reboot renice rev rm rmdir sed seq setsid sh sha256sum sleep sort stat stty sync sysctl tac tail tar tee test timeout touch tr true tty umount uname uniq unlink unshare uptime vi wc wget which whoami xargs yes zcat; do \
      test -e /out/usr/bin/$applet || test -e /out/usr/sbin/$applet || ln -s busybox /out/usr/bin/$applet; \
    done; \
    printf 'root:x:0:0:root:/root:/bin/sh\n' > /out/etc/passwd; printf 'root:x:0:\n' > /out/etc/group; \
    printf '/usr/local/nvidia/lib64\n' > /out/etc/ld.so.conf; \
    : 'Nothing in it runs here: that its programs are for the right machine has to do, until a kernel boots them.'; \
    for program in kmod zstd busybox; do \
      aarch64-linux-gnu-readelf --file-header /out/usr/bin/$program | grep -q 'Machine: *AArch64$'; done; \
    find /out -exec touch -h -d @1795161600 {} +
FROM scratch
COPY --from=unpack /out/ /
ENV PATH=/usr/local/nvidia/bin:/usr/sbin:/usr/bin:/sbin:/bin
