# Made by 'doit render' from dockerfiles/toolchain-debian.Dockerfile.j2 and versions.lock. A file edited by hand is never built.
# What compiles for debian: debian-12, amd64, out of 2 pinned packages alone.
# root.tar holds the same packages unpacked, so that dpkg can run and configure them. No step has a network.
FROM scratch
ADD root.tar /
COPY debs/ /debs/
ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C
RUN set -eu; cd /debs; printf '%s\n' \
    '4add38575bcdd18c5513457c8ef3165be6d766d969ba7b9a2336c8cf1836356b  dpkg_1.0-1_amd64.deb' \
    'f0287f09fe53d96902f3f819fa3e6773c49da0d0ecef04132ac1f058c4750fc2  gcc-12_1.0-1_amd64.deb' \
    | sha256sum --check --strict --quiet
RUN dpkg --force-depends --force-confnew --install /debs/*.deb; dpkg --configure --pending; gcc --version
LABEL io.coreos-nvidia.os=debian io.coreos-nvidia.arch=amd64
