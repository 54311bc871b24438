# Made by 'doit render' from dockerfiles/toolchain-image.Dockerfile.j2 and versions.lock. A file edited by hand is never built.
# What compiles for fedora-coreos: fedora-44, arm64: the vendor's registry.fedoraproject.org/fedora:44
# (sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff) and 1 pinned packages. No step has a network.
# Their signatures were checked when they were pinned, and their sums are here; rpm 6 asks for the key in its own database.
FROM driver-from:ffffffffffffffff-arm64
COPY rpms/ /rpms/
RUN set -eu; cd /rpms; printf '%s\n' \
    '36540fd206ac8e4f47937c1bb1a2126f8d2300b7a6d45b2f3dc0943cf2e4da1e  gcc-15.2.1-1.fc44.aarch64.rpm' \
    | sha256sum --check --strict --quiet; rpm --upgrade --nodeps --noscripts --replacepkgs --oldpackage --nosignature *.rpm; ldconfig
ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
RUN set -eu; for program in gcc make strip depmod patch tar xz; do command -v $program; done; gcc --version
LABEL io.coreos-nvidia.os=fedora-coreos io.coreos-nvidia.arch=arm64
