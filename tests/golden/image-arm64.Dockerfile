# Made by 'doit render' from dockerfiles/image-debian.Dockerfile.j2 and versions.lock. A file edited by hand is never built.
# flatcar/arm64:6.12.102-flatcar-535.261.03: kernel modules of NVIDIA 535.261.03 for 6.12.102-flatcar (arm64).
FROM driver-toolchain:d41e2a5f94183a15 AS kernel
COPY headers/ /in/
RUN set -eu; cd /in; printf '%s\n' \
    'd4a67110db203fd410f22ffce8193cf3771e3c4366e3e9cd979e4d00e71b2f84  linux-headers-6.12.102-flatcar_6.12.102-3_arm64.deb' \
    | sha256sum --check --strict --quiet; \
    dpkg-deb --fsys-tarfile linux-headers-6.12.102-flatcar_6.12.102-3_arm64.deb | tar -C / --keep-directory-symlink -xf -; \
    test -e /lib/modules/6.12.102-flatcar/build/Module.symvers
ENV LC_ALL=C KBUILD_BUILD_TIMESTAMP=@1795161600 KBUILD_BUILD_USER=driver KBUILD_BUILD_HOST=driver SOURCE_DATE_EPOCH=1795161600

# NVIDIA's probes of the kernel's interfaces (a third of the time of a build): their answers depend on the headers, the
# flags and the probe script, which are the same for every kind, so they are asked once, and kept by the engine's cache
# between runs. Kbuild has no target for them alone; one small object needs them all.
FROM kernel AS probes
COPY debs/nvidia-kernel-source_535.261.03-1_arm64.deb /in/
RUN set -eu; cd /in; printf '%s\n' 'd5628febdfbb323d5ccaadc2a32d671395e6523f79a3bd67f1b61a423b972f78  nvidia-kernel-source_535.261.03-1_arm64.deb' | sha256sum --check --strict --quiet; \
    dpkg-deb -x nvidia-kernel-source_535.261.03-1_arm64.deb /source; mkdir -p /build/nvidia; \
    tar -C /build/nvidia --strip-components=2 -xf /source/usr/src/*.tar.xz
# JOBS decides how fast, never what.
ARG JOBS=2
RUN make -C /lib/modules/6.12.102-flatcar/source KBUILD_OUTPUT=/lib/modules/6.12.102-flatcar/build M=/build/nvidia -j"$JOBS" ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- KCFLAGS=-g0 NV_KERNEL_MODULES="nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem" NV_SPECTRE_V2=0 \
      NV_KERNEL_SOURCES=/lib/modules/6.12.102-flatcar/source NV_KERNEL_OUTPUT=/lib/modules/6.12.102-flatcar/build nvidia/nv-dma.o

FROM kernel AS proprietary
COPY debs/nvidia-kernel-source_535.261.03-1_arm64.deb /in/
RUN set -eu; cd /in; printf '%s\n' 'd5628febdfbb323d5ccaadc2a32d671395e6523f79a3bd67f1b61a423b972f78  nvidia-kernel-source_535.261.03-1_arm64.deb' | sha256sum --check --strict --quiet; \
    dpkg-deb -x nvidia-kernel-source_535.261.03-1_arm64.deb /source; mkdir -p /build/nvidia; \
    tar -C /build/nvidia --strip-components=2 -xf /source/usr/src/*.tar.xz
COPY --from=probes /build/nvidia/conftest/ /build/nvidia/conftest/
ARG JOBS=2
RUN set -eu; make -C /build/nvidia KERNEL_UNAME=6.12.102-flatcar -j"$JOBS" ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- KCFLAGS=-g0 NV_KERNEL_MODULES="nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem" modules; \
    mkdir -p /out/opt/lib/modules/6.12.102-flatcar; \
    for module in nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem; do \
      aarch64-linux-gnu-strip --strip-debug -o /out/opt/lib/modules/6.12.102-flatcar/$module.ko /build/nvidia/$module.ko; done; \
    ln -s /host/lib/modules/6.12.102-flatcar /out/opt/lib/modules/6.12.102-flatcar/host; \
    touch /out/opt/lib/modules/6.12.102-flatcar/modules.order /out/opt/lib/modules/6.12.102-flatcar/modules.builtin /out/opt/lib/modules/6.12.102-flatcar/modules.builtin.modinfo; \
    depmod -b /out/opt 6.12.102-flatcar; \
    find /out -exec touch -h -d @1795161600 {} +

FROM kernel AS open
COPY debs/nvidia-open-kernel-source_535.261.03-1_arm64.deb /in/
RUN set -eu; cd /in; printf '%s\n' 'f208937b98931210b1963e84d928cb3cfa4e91d86cf01376b246e2e0c53e1480  nvidia-open-kernel-source_535.261.03-1_arm64.deb' | sha256sum --check --strict --quiet; \
    dpkg-deb -x nvidia-open-kernel-source_535.261.03-1_arm64.deb /source; mkdir -p /build/nvidia; \
    tar -C /build/nvidia --strip-components=2 -xf /source/usr/src/*.tar.xz
COPY --from=probes /build/nvidia/conftest/ /build/nvidia/conftest/
ARG JOBS=2
RUN set -eu; make -C /build/nvidia KERNEL_UNAME=6.12.102-flatcar -j"$JOBS" ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- KCFLAGS=-g0 NV_KERNEL_MODULES="nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem" modules; \
    mkdir -p /out/opt/open/lib/modules/6.12.102-flatcar; \
    for module in nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem; do \
      aarch64-linux-gnu-strip --strip-debug -o /out/opt/open/lib/modules/6.12.102-flatcar/$module.ko /build/nvidia/$module.ko; done; \
    ln -s /host/lib/modules/6.12.102-flatcar /out/opt/open/lib/modules/6.12.102-flatcar/host; \
    touch /out/opt/open/lib/modules/6.12.102-flatcar/modules.order /out/opt/open/lib/modules/6.12.102-flatcar/modules.builtin /out/opt/open/lib/modules/6.12.102-flatcar/modules.builtin.modinfo; \
    depmod -b /out/opt/open 6.12.102-flatcar; \
    find /out -exec touch -h -d @1795161600 {} +
RUN set -eu; l=/out/usr/share/licenses/nvidia-535.261.03; mkdir -p $l; \
    cp /source/usr/share/doc/nvidia-open-kernel-source/copyright $l/nvidia-open-kernel-source; chmod 0644 $l/*; \
    find /out -exec touch -h -d @1795161600 {} +

FROM kernel AS out
COPY --from=proprietary /out/ /out/
COPY --from=open /out/ /out/
RUN set -eu; mkdir -p /out/opt/nvidia-driver; printf '%s\n' \
      'KERNEL=6.12.102-flatcar' \
      'DRIVER=535.261.03' \
      'ARCH=arm64' \
      'KINDS="open proprietary"' \
      'RECOMMENDED=proprietary' \
      'MODULES="nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem"' \
      > /out/opt/nvidia-driver/image.env; chmod 0644 /out/opt/nvidia-driver/image.env; \
    find /out -exec touch -h -d @1795161600 {} +

FROM driver-userspace:d92685bbb00c19df
COPY --from=out /out/ /
COPY program/ /
# 1310ca2c8932dbd118668bd97442558a3e1f546b5e15c69699dfbd6024f548d8  usr/bin/nvidia-driver
ENV PATH=/usr/local/nvidia/bin:/usr/sbin:/usr/bin:/sbin:/bin
LABEL io.coreos-nvidia.arch="arm64" io.coreos-nvidia.driver="535.261.03" io.coreos-nvidia.kernel="6.12.102-flatcar" io.coreos-nvidia.kinds="open proprietary" io.coreos-nvidia.os="flatcar" io.coreos-nvidia.other-versions="nvidia-persistenced=535.171.04-1~deb12u1" org.opencontainers.image.created="2026-11-20T08:00:00Z" org.opencontainers.image.description="NVIDIA driver 535.261.03 for Linux 6.12.102-flatcar" org.opencontainers.image.licenses="Apache-2.0 AND LicenseRef-NVIDIA-Driver" org.opencontainers.image.source="https://example.com/project" org.opencontainers.image.title="driver" org.opencontainers.image.version="6.12.102-flatcar-535.261.03"
ENTRYPOINT ["/usr/bin/nvidia-driver"]
CMD ["init"]
