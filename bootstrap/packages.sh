# shellcheck shell=bash disable=SC2034 # doit.sh chooses among the lists
# Debian packages: what is missing, and its installation. Sourced by doit.sh.
#
# One line a package: the package, then a program (on PATH) or a file that shows that it is there, whoever put it there.

PYTHON_PACKAGES='
python3 python3
python3-venv -
'
BASE_PACKAGES='
ca-certificates /etc/ssl/certs/ca-certificates.crt
gpgv gpgv
openssl openssl
'
ENGINE_PACKAGES='
docker.io dockerd
containerd containerd
mount umount
runc runc
'
REGISTRY_PACKAGES='
docker-registry docker-registry
perl-base perl
'
PROOF_PACKAGES='
qemu-system-x86 qemu-system-x86_64
'
# Where versions.lock pins kernels for arm64, and in tests.
ARM64_PACKAGES='
qemu-system-arm qemu-system-aarch64
'
# Tests read, build and run with programs that nobody here wrote.
TEST_PACKAGES='
apache2-utils htpasswd
bc bc
binutils strip
bison bison
buildah buildah
busybox-static busybox
bzip2 bzip2
chromium chromium
chromium-driver chromedriver
cpio cpio
crun crun
curl curl
docker.io docker
e2fsprogs mke2fs
fdisk sfdisk
flex flex
fuse-overlayfs fuse-overlayfs
gcc gcc
git git
gnupg gpg
ignition ignition-validate
jq jq
kmod modinfo
libc6-dev /usr/include/stdio.h
libelf-dev /usr/include/libelf.h
libssl-dev /usr/include/openssl/ssl.h
make make
makeself makeself
mmdebstrap mmdebstrap
podman podman
qemu-utils qemu-img
rpm rpmbuild
shellcheck shellcheck
skopeo skopeo
tar tar
uidmap newuidmap
xz-utils xz
zstd zstd
'

POLICY=/usr/sbin/policy-rc.d
POLICY_MARK='# made by doit.sh while it installs packages'
UNITS='docker.socket docker.service containerd.service docker-registry.service'

# missing LIST...: the packages of the lists that are not there, one a line
missing() {
    local package sign
    printf '%s\n' "$@" | while read -r package sign; do
        case $sign in
            '') ;;
            -) is_installed "$package" || printf '%s\n' "$package" ;;
            /*) [ -e "$sign" ] || printf '%s\n' "$package" ;;
            *) command -v "$sign" >/dev/null || printf '%s\n' "$package" ;;
        esac
    done | sort -u
}

is_installed() {
    # shellcheck disable=SC2016 # dpkg's own word, not the shell's
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# install_packages PACKAGE...: with apt-get, after saying so; ends the program where that cannot be done
install_packages() {
    [ $# -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "$* not installed, and this is no Debian: install what they hold by hand"
    need_root "install $*"
    say "will install with apt-get: $*"
    mkdir -p "$ROOT/build"
    local log=$ROOT/build/apt.log
    hold_services_back
    if ! { as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update &&
        as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
            apt-get -q -y --no-install-recommends install "$@"; } >"$log" 2>&1 </dev/null; then
        let_services_go
        tail -n 5 "$log" >&2
        die "apt-get could not install $*: see build/apt.log, mend apt, and run again"
    fi
    let_services_go
    disable_new_services "$@"
}

# Debian starts a service as soon as its package is there: docker.io would bring up a second engine, docker-registry would
# take port 5000. policy-rc.d is the archive's own way to say no (Debian policy 9.3.3); one that is there is left alone.
hold_services_back() {
    if [ -e "$POLICY" ] && ! grep -qxF "$POLICY_MARK" "$POLICY"; then return; fi
    trap let_services_go EXIT
    printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" | as_root sh -c "cat >$POLICY && chmod 755 $POLICY"
}

let_services_go() {
    if [ -e "$POLICY" ] && grep -qxF "$POLICY_MARK" "$POLICY"; then as_root rm -f "$POLICY"; fi
    trap - EXIT
}

# disable_new_services PACKAGE...: nor shall the next boot start them; units that were there before stay as they were
disable_new_services() {
    [ -d /run/systemd/system ] || return 0
    local unit package
    for unit in $UNITS; do
        package=${unit%.*}
        [ "$package" != docker ] || package=docker.io
        case " $* " in
            *" $package "*)
                as_root systemctl disable --quiet "$unit" 2>/dev/null || say "$unit stays as Debian set it up"
                ;;
        esac
    done
}
