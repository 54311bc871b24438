# Made by 'doit render' from dockerfiles/toolchain-debian.Dockerfile.j2 and versions.lock. A file edited by hand is never built.
# What compiles for debian: debian-12-source, arm64, out of 7 pinned packages alone. Runs on amd64.
# root.tar holds the same packages unpacked, so that dpkg can run and configure them. No step has a network.
FROM scratch
ADD root.tar /
COPY debs/ /debs/
ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C
RUN set -eu; cd /debs; printf '%s\n' \
    '4047b6f5083d7b9b5576c3e754f1fbfddfe85c7e23ad00af89e8444c6f2bd9ee  gcc-12-aarch64-linux-gnu_12.2.0-14cross1_amd64.deb' \
    '4add38575bcdd18c5513457c8ef3165be6d766d969ba7b9a2336c8cf1836356b  dpkg_1.0-1_amd64.deb' \
    '10482ed8be467e36a3425d0a2017544d15ffc16e4a013dd9e071c90c31337105  bison_1.0-1_amd64.deb' \
    '0bcee5e0257dee0914dd3ffe49a630dd17c5830dcb83e93d8ba8d764aacdde8b  flex_1.0-1_amd64.deb' \
    'f0287f09fe53d96902f3f819fa3e6773c49da0d0ecef04132ac1f058c4750fc2  gcc-12_1.0-1_amd64.deb' \
    'e60ca419f1df732c372a6799a05d3c03ab96976b5dc900fb8d67a6f449b32db9  libc6-dev_1.0-1_amd64.deb' \
    'cbf86c270da2a5da1c343cc16b86ae9a6ecbf35db455b1a83afd566face9d837  libssl-dev_1.0-1_amd64.deb' \
    | sha256sum --check --strict --quiet
RUN dpkg --force-depends --force-confnew --install /debs/*.deb; dpkg --configure --pending; aarch64-linux-gnu-gcc --version
LABEL io.coreos-nvidia.os=debian io.coreos-nvidia.arch=arm64
