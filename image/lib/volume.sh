# shellcheck shell=sh
# The nvidia-docker volume: a copy of the userspace on the host, whole or without its stamp. Needs no loaded module.

# loader: the dynamic loader's name on this machine.
loader() {
    case $(multiarch) in
        aarch64*) echo ld-linux-aarch64.so.1 ;;
        *) echo ld-linux-x86-64.so.2 ;;
    esac
}

# own_loader DIRECTORY: this image's C library beside the tools, and starters that use it, so that they run on any host.
own_loader() {
    mkdir -p "$1/glibc" "$1/host-bin" || return 1
    for library in "$(loader)" libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1 libgcc_s.so.1; do
        for found in "$IMAGE_ROOT/usr/lib/$(multiarch)/$library" "$IMAGE_ROOT/lib64/$library" "$IMAGE_ROOT/lib/$library"; do
            [ -e "$found" ] || continue
            cp -L "$found" "$1/glibc/$library" || return 1
            break
        done
    done
    for tool in "$1"/bin/*; do
        [ -f "$tool" ] || continue
        starter=$1/host-bin/${tool##*/}
        {
            printf '#!/bin/sh\n# Starts %s with the loader and the libraries of this volume; the host needs neither.\nv=%s\n' "${tool##*/}" "$VOLUMES/$DRIVER"
            # shellcheck disable=SC2016
            printf 'exec "$v/glibc/%s" --library-path "$v/glibc:$v/lib64" "$v/bin/%s" "$@"\n' "$(loader)" "${tool##*/}"
        } > "$starter" && chmod 755 "$starter" || return 1
    done
}

fill_volume() {
    need_image
    volume=$HOST_ROOT$VOLUMES/$DRIVER
    first_line "$volume/.complete"
    if [ "$LINE" = "$DRIVER" ]; then
        say "the volume $volume is complete"
        return 0
    fi
    mkdir -p "$HOST_ROOT$VOLUMES" || die 1 "volume: cannot make $HOST_ROOT$VOLUMES: mount the host's /var/lib/nvidia-docker there, writable"
    # What an earlier try left, its process gone with its container.
    rm -rf "$HOST_ROOT$VOLUMES/.$DRIVER".*
    new=$HOST_ROOT$VOLUMES/.$DRIVER.new old=$HOST_ROOT$VOLUMES/.$DRIVER.old
    mkdir "$new" && cp -a "$IMAGE_ROOT/usr/local/nvidia/." "$new/" && mkdir -p "$new/lib" "$new/lib64" "$new/bin" && own_loader "$new" ||
        { rm -rf "$new"; die 1 "volume: cannot copy $IMAGE_ROOT/usr/local/nvidia to $new: is the disk full?"; }
    [ ! -e "$volume" ] || mv "$volume" "$old"
    mv "$new" "$volume" || die 1 "volume: cannot rename $new to $volume"
    rm -rf "$old"
    # The stamp says that all before it is on the disk.
    sync
    printf '%s\n' "$DRIVER" > "$volume/.complete" || die 1 "volume: cannot write $volume/.complete"
    sync
    say "filled the volume $volume"
}
