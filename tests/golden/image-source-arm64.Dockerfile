# Made by 'doit render' from dockerfiles/image-source.Dockerfile.j2 and versions.lock. A file edited by hand is never built.
# flatcar/arm64:6.1.176-flatcar-535.261.03: kernel modules of NVIDIA 535.261.03 for 6.1.176-flatcar (arm64).
FROM driver-toolchain:0a393fcc65d424b8 AS kernel
ADD headers.tar /
# headers.tar (layout 2) is made of:
#   sha256 857f11cf1e83622011025c4cdc43818665a5a5efb7b75403d3034dbd19c1d5ce  flatcar_production_image_kernel_config.txt
#   sha256 f4447e1ee9d44d407d99fe38a5b8c5b17577c598f737e95dd6e1d32590c1863f  linux-6.1.176.tar.xz
#   sha256 ec8ced68ac8d9c15258fba7149100508156028aa8bd1eeead4054efd0f7dd292  flatcar_production_pxe.vmlinuz (what it exports is its Module.symvers)
RUN set -eu; d=/usr/lib/modules/6.1.176-flatcar; mkdir -p $d; \
    test -e $d/build || ln -sfn ../../../src/kernels/6.1.176-flatcar $d/build; \
    test -e $d/source || ln -sfn build $d/source
# The name is that of the running kernel, whatever LOCALVERSION its configuration says; modules_prepare makes no
# Module.symvers: NVIDIA's probes and modpost read the one that was made of the kernel image's own table.
# What the configuration asks for and this compiler has not, olddefconfig drops: refused where structures would differ by it.
RUN set -eu; cd /usr/src/kernels/6.1.176-flatcar; cp .config /tmp/given; \
    scripts/config --set-str LOCALVERSION '-flatcar' --disable LOCALVERSION_AUTO \
      --disable MODULE_SIG_ALL --set-str SYSTEM_TRUSTED_KEYS '' --set-str SYSTEM_REVOCATION_KEYS ''; \
    make -s ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- olddefconfig; \
    for option in MODVERSIONS RANDSTRUCT GCC_PLUGIN_RANDSTRUCT CFI_CLANG LTO_CLANG DEBUG_INFO_BTF_MODULES; do \
      if grep -qx "CONFIG_$option=y" /tmp/given && ! grep -qx "CONFIG_$option=y" .config; then \
        echo "ERROR: the configuration has $option, which this toolchain cannot give" >&2; exit 1; fi; done; \
    make -s -j2 ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- modules_prepare; \
    grep -qxF '6.1.176-flatcar' include/config/kernel.release; test -s Module.symvers
ENV LC_ALL=C KBUILD_BUILD_TIMESTAMP=@1795161600 KBUILD_BUILD_USER=driver KBUILD_BUILD_HOST=driver SOURCE_DATE_EPOCH=1795161600

# NVIDIA's probes of the kernel's interfaces (a third of the time of a build): their answers depend on the headers, the
# flags and the probe script, which are the same for every kind, so they are asked once, and kept by the engine's cache
# between runs. Kbuild has no target for them alone; one small object needs them all.
FROM kernel AS probes
ADD modules.tar /in/
# modules.tar (layout 2): kernel modules' sources out of NVIDIA-Linux-aarch64-535.261.03.run
#   sha256 771e782d3df3b0dcabe08937ed0b4e4709b9ddfcedd0d6dd4f78d6191223ad1e
RUN set -eu; mkdir -p /build; mv /in/kernel /build/nvidia
# JOBS decides how fast, never what.
ARG JOBS=2
RUN make -C /lib/modules/6.1.176-flatcar/source KBUILD_OUTPUT=/lib/modules/6.1.176-flatcar/build M=/build/nvidia -j"$JOBS" ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- KCFLAGS=-g0 IGNORE_CC_MISMATCH=1 NV_KERNEL_MODULES="nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem" NV_SPECTRE_V2=0 \
      NV_KERNEL_SOURCES=/lib/modules/6.1.176-flatcar/source NV_KERNEL_OUTPUT=/lib/modules/6.1.176-flatcar/build nvidia/nv-dma.o

FROM kernel AS proprietary
ADD modules.tar /in/
# modules.tar (layout 2): kernel modules' sources out of NVIDIA-Linux-aarch64-535.261.03.run
#   sha256 771e782d3df3b0dcabe08937ed0b4e4709b9ddfcedd0d6dd4f78d6191223ad1e
RUN set -eu; mkdir -p /build; mv /in/kernel /build/nvidia
COPY --from=probes /build/nvidia/conftest/ /build/nvidia/conftest/
ARG JOBS=2
RUN set -eu; make -C /build/nvidia KERNEL_UNAME=6.1.176-flatcar -j"$JOBS" ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- KCFLAGS=-g0 IGNORE_CC_MISMATCH=1 NV_KERNEL_MODULES="nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem" modules; \
    mkdir -p /out/opt/lib/modules/6.1.176-flatcar; \
    for module in nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem; do \
      aarch64-linux-gnu-strip --strip-debug -o /out/opt/lib/modules/6.1.176-flatcar/$module.ko /build/nvidia/$module.ko; done; \
    ln -s /host/lib/modules/6.1.176-flatcar /out/opt/lib/modules/6.1.176-flatcar/host; \
    touch /out/opt/lib/modules/6.1.176-flatcar/modules.order /out/opt/lib/modules/6.1.176-flatcar/modules.builtin /out/opt/lib/modules/6.1.176-flatcar/modules.builtin.modinfo; \
    depmod -b /out/opt 6.1.176-flatcar; \
    find /out -exec touch -h -d @1795161600 {} +

FROM kernel AS open
ADD modules.tar /in/
# modules.tar (layout 2): kernel modules' sources out of NVIDIA-Linux-aarch64-535.261.03.run
#   sha256 771e782d3df3b0dcabe08937ed0b4e4709b9ddfcedd0d6dd4f78d6191223ad1e
RUN set -eu; mkdir -p /build; mv /in/kernel-open /build/nvidia
COPY --from=probes /build/nvidia/conftest/ /build/nvidia/conftest/
ARG JOBS=2
RUN set -eu; make -C /build/nvidia KERNEL_UNAME=6.1.176-flatcar -j"$JOBS" ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- KCFLAGS=-g0 IGNORE_CC_MISMATCH=1 NV_KERNEL_MODULES="nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem" modules; \
    mkdir -p /out/opt/open/lib/modules/6.1.176-flatcar; \
    for module in nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem; do \
      aarch64-linux-gnu-strip --strip-debug -o /out/opt/open/lib/modules/6.1.176-flatcar/$module.ko /build/nvidia/$module.ko; done; \
    ln -s /host/lib/modules/6.1.176-flatcar /out/opt/open/lib/modules/6.1.176-flatcar/host; \
    touch /out/opt/open/lib/modules/6.1.176-flatcar/modules.order /out/opt/open/lib/modules/6.1.176-flatcar/modules.builtin /out/opt/open/lib/modules/6.1.176-flatcar/modules.builtin.modinfo; \
    depmod -b /out/opt/open 6.1.176-flatcar; \
    find /out -exec touch -h -d @1795161600 {} +

FROM kernel AS out
COPY --from=proprietary /out/ /out/
COPY --from=open /out/ /out/
RUN set -eu; mkdir -p /out/opt/nvidia-driver; printf '%s\n' \
      'KERNEL=6.1.176-flatcar' \
      'DRIVER=535.261.03' \
      'ARCH=arm64' \
      'KINDS="open proprietary"' \
      'RECOMMENDED=proprietary' \
      'MODULES="nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem"' \
      > /out/opt/nvidia-driver/image.env; chmod 0644 /out/opt/nvidia-driver/image.env; \
    find /out -exec touch -h -d @1795161600 {} +

FROM driver-userspace:1656ac7225b09442
COPY --from=out /out/ /
COPY program/ /
# 1310ca2c8932dbd118668bd97442558a3e1f546b5e15c69699dfbd6024f548d8  usr/bin/nvidia-driver
ENV PATH=/usr/local/nvidia/bin:/usr/sbin:/usr/bin:/sbin:/bin
LABEL io.coreos-nvidia.arch="arm64" io.coreos-nvidia.driver="535.261.03" io.coreos-nvidia.kernel="6.1.176-flatcar" io.coreos-nvidia.kinds="open proprietary" io.coreos-nvidia.os="flatcar" org.opencontainers.image.created="2026-11-20T08:00:00Z" org.opencontainers.image.description="NVIDIA driver 535.261.03 for Linux 6.1.176-flatcar" org.opencontainers.image.licenses="Apache-2.0 AND LicenseRef-NVIDIA-Driver" org.opencontainers.image.source="https://example.com/project" org.opencontainers.image.title="driver" org.opencontainers.image.version="6.1.176-flatcar-535.261.03"
ENTRYPOINT ["/usr/bin/nvidia-driver"]
CMD ["init"]
