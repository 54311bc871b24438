# Made by 'doit render' from dockerfiles/image-debian.Dockerfile.j2 and versions.lock. A file edited by hand is never built.
# debian/amd64:6.1.0-47-cloud-amd64-535.261.03: kernel modules of NVIDIA 535.261.03 for 6.1.0-47-cloud-amd64 (amd64).
FROM driver-toolchain:0c2404e69ce0fde9 AS kernel
COPY headers/ /in/
RUN set -eu; cd /in; printf '%s\n' \
    '7ebfd69a27c75785af509e8971a9419af11f564e934d817d514f8fbf0e3f5b8a  linux-headers-6.1.0-47-cloud-amd64_6.1.170-3_amd64.deb' \
    | sha256sum --check --strict --quiet; \
    dpkg-deb --fsys-tarfile linux-headers-6.1.0-47-cloud-amd64_6.1.170-3_amd64.deb | tar -C / --keep-directory-symlink -xf -; \
    test -e /lib/modules/6.1.0-47-cloud-amd64/build/Module.symvers
ENV LC_ALL=C KBUILD_BUILD_TIMESTAMP=@1795161600 KBUILD_BUILD_USER=driver KBUILD_BUILD_HOST=driver SOURCE_DATE_EPOCH=1795161600

# NVIDIA's probes of the kernel's interfaces (a third of the time of a build): their answers depend on the headers, the
# flags and the probe script, which are the same for every kind, so they are asked once, and kept by the engine's cache
# between runs. Kbuild has no target for them alone; one small object needs them all.
FROM kernel AS probes
COPY debs/nvidia-kernel-source_535.261.03-1_amd64.deb /in/
RUN set -eu; cd /in; printf '%s\n' '80fc9ac18adc901f7747310e3b62cb1480436d760c9dbcfcdd915bf1dba076d7  nvidia-kernel-source_535.261.03-1_amd64.deb' | sha256sum --check --strict --quiet; \
    dpkg-deb -x nvidia-kernel-source_535.261.03-1_amd64.deb /source; mkdir -p /build/nvidia; \
    tar -C /build/nvidia --strip-components=2 -xf /source/usr/src/*.tar.xz
# JOBS decides how fast, never what.
ARG JOBS=2
RUN make -C /lib/modules/6.1.0-47-cloud-amd64/source KBUILD_OUTPUT=/lib/modules/6.1.0-47-cloud-amd64/build M=/build/nvidia -j"$JOBS" ARCH=x86_64 KCFLAGS=-g0 NV_KERNEL_MODULES="nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem" NV_SPECTRE_V2=0 \
      NV_KERNEL_SOURCES=/lib/modules/6.1.0-47-cloud-amd64/source NV_KERNEL_OUTPUT=/lib/modules/6.1.0-47-cloud-amd64/build nvidia/nv-dma.o

FROM kernel AS proprietary
COPY debs/nvidia-kernel-source_535.261.03-1_amd64.deb /in/
RUN set -eu; cd /in; printf '%s\n' '80fc9ac18adc901f7747310e3b62cb1480436d760c9dbcfcdd915bf1dba076d7  nvidia-kernel-source_535.261.03-1_amd64.deb' | sha256sum --check --strict --quiet; \
    dpkg-deb -x nvidia-kernel-source_535.261.03-1_amd64.deb /source; mkdir -p /build/nvidia; \
    tar -C /build/nvidia --strip-components=2 -xf /source/usr/src/*.tar.xz
COPY --from=probes /build/nvidia/conftest/ /build/nvidia/conftest/
ARG JOBS=2
RUN set -eu; make -C /build/nvidia KERNEL_UNAME=6.1.0-47-cloud-amd64 -j"$JOBS" ARCH=x86_64 KCFLAGS=-g0 NV_KERNEL_MODULES="nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem" modules; \
    mkdir -p /out/opt/lib/modules/6.1.0-47-cloud-amd64; \
    for module in nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem; do \
      strip --strip-debug -o /out/opt/lib/modules/6.1.0-47-cloud-amd64/$module.ko /build/nvidia/$module.ko; done; \
    ln -s /host/lib/modules/6.1.0-47-cloud-amd64 /out/opt/lib/modules/6.1.0-47-cloud-amd64/host; \
    touch /out/opt/lib/modules/6.1.0-47-cloud-amd64/modules.order /out/opt/lib/modules/6.1.0-47-cloud-amd64/modules.builtin /out/opt/lib/modules/6.1.0-47-cloud-amd64/modules.builtin.modinfo; \
    depmod -b /out/opt 6.1.0-47-cloud-amd64; \
    find /out -exec touch -h -d @1795161600 {} +

FROM kernel AS open
COPY debs/nvidia-open-kernel-source_535.261.03-1_amd64.deb /in/
RUN set -eu; cd /in; printf '%s\n' '6e8ea62779406f220efa7d6952bcff201945bad6dcb5a9465148b6a4bd66fc07  nvidia-open-kernel-source_535.261.03-1_amd64.deb' | sha256sum --check --strict --quiet; \
    dpkg-deb -x nvidia-open-kernel-source_535.261.03-1_amd64.deb /source; mkdir -p /build/nvidia; \
    tar -C /build/nvidia --strip-components=2 -xf /source/usr/src/*.tar.xz
COPY --from=probes /build/nvidia/conftest/ /build/nvidia/conftest/
ARG JOBS=2
RUN set -eu; make -C /build/nvidia KERNEL_UNAME=6.1.0-47-cloud-amd64 -j"$JOBS" ARCH=x86_64 KCFLAGS=-g0 NV_KERNEL_MODULES="nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem" modules; \
    mkdir -p /out/opt/open/lib/modules/6.1.0-47-cloud-amd64; \
    for module in nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem; do \
      strip --strip-debug -o /out/opt/open/lib/modules/6.1.0-47-cloud-amd64/$module.ko /build/nvidia/$module.ko; done; \
    ln -s /host/lib/modules/6.1.0-47-cloud-amd64 /out/opt/open/lib/modules/6.1.0-47-cloud-amd64/host; \
    touch /out/opt/open/lib/modules/6.1.0-47-cloud-amd64/modules.order /out/opt/open/lib/modules/6.1.0-47-cloud-amd64/modules.builtin /out/opt/open/lib/modules/6.1.0-47-cloud-amd64/modules.builtin.modinfo; \
    depmod -b /out/opt/open 6.1.0-47-cloud-amd64; \
    find /out -exec touch -h -d @1795161600 {} +
RUN set -eu; l=/out/usr/share/licenses/nvidia-535.261.03; mkdir -p $l; \
    cp /source/usr/share/doc/nvidia-open-kernel-source/copyright $l/nvidia-open-kernel-source; chmod 0644 $l/*; \
    find /out -exec touch -h -d @1795161600 {} +

FROM kernel AS out
COPY --from=proprietary /out/ /out/
COPY --from=open /out/ /out/
RUN set -eu; mkdir -p /out/opt/nvidia-driver; printf '%s\n' \
      'KERNEL=6.1.0-47-cloud-amd64' \
      'DRIVER=535.261.03' \
      'ARCH=amd64' \
      'KINDS="open proprietary"' \
      'RECOMMENDED=proprietary' \
      'MODULES="nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem"' \
      > /out/opt/nvidia-driver/image.env; chmod 0644 /out/opt/nvidia-driver/image.env; \
    find /out -exec touch -h -d @1795161600 {} +

FROM driver-userspace:1f34ecde030d0b1f
COPY --from=out /out/ /
COPY program/ /
# 1310ca2c8932dbd118668bd97442558a3e1f546b5e15c69699dfbd6024f548d8  usr/bin/nvidia-driver
ENV PATH=/usr/local/nvidia/bin:/usr/sbin:/usr/bin:/sbin:/bin
LABEL io.coreos-nvidia.arch="amd64" io.coreos-nvidia.driver="535.261.03" io.coreos-nvidia.kernel="6.1.0-47-cloud-amd64" io.coreos-nvidia.kinds="open proprietary" io.coreos-nvidia.os="debian" io.coreos-nvidia.other-versions="nvidia-persistenced=535.171.04-1~deb12u1" org.opencontainers.image.created="2026-11-20T08:00:00Z" org.opencontainers.image.description="NVIDIA driver 535.261.03 for Linux 6.1.0-47-cloud-amd64" org.opencontainers.image.licenses="Apache-2.0 AND LicenseRef-NVIDIA-Driver" org.opencontainers.image.source="https://example.com/project" org.opencontainers.image.title="driver" org.opencontainers.image.version="6.1.0-47-cloud-amd64-535.261.03"
ENTRYPOINT ["/usr/bin/nvidia-driver"]
CMD ["init"]
