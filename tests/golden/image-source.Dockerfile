# Made by 'doit render' from dockerfiles/image-source.Dockerfile.j2 and versions.lock. A file edited by hand is never built.
# container-linux/amd64:6.1.176-coreos-535.261.03: kernel modules of NVIDIA 535.261.03 for 6.1.176-coreos (amd64).
FROM driver-toolchain:0c2404e69ce0fde9 AS kernel
ADD headers.tar /
# headers.tar (layout 2) is made of:
#   sha256 1cde356a7a1b030bd47f8f5605308e32edb1fe0aff01fad2ddd020792312d97d  flatcar_production_image_kernel_config.txt
#   sha256 fc22a9eef19096309cf39f4bade0132c89a5f5cbe6fe11a574f781a98cd56aea  linux-6.1.176.tar.xz
#   sha256 c08d1aa9f8da5f86a9428e248eb05433a0228e5f5d7f96100ac867867a19cbc5  flatcar_production_pxe.vmlinuz (what it exports is its Module.symvers)
RUN set -eu; d=/usr/lib/modules/6.1.176-coreos; mkdir -p $d; \
    test -e $d/build || ln -sfn ../../../src/kernels/6.1.176-coreos $d/build; \
    test -e $d/source || ln -sfn build $d/source
# The name is that of the running kernel, whatever LOCALVERSION its configuration says; modules_prepare makes no
# Module.symvers: NVIDIA's probes and modpost read the one that was made of the kernel image's own table.
# What the configuration asks for and this compiler has not, olddefconfig drops: refused where structures would differ by it.
RUN set -eu; cd /usr/src/kernels/6.1.176-coreos; cp .config /tmp/given; \
    scripts/config --set-str LOCALVERSION '-coreos' --disable LOCALVERSION_AUTO \
      --disable MODULE_SIG_ALL --set-str SYSTEM_TRUSTED_KEYS '' --set-str SYSTEM_REVOCATION_KEYS ''; \
    make -s ARCH=x86_64 olddefconfig; \
    for option in MODVERSIONS RANDSTRUCT GCC_PLUGIN_RANDSTRUCT CFI_CLANG LTO_CLANG DEBUG_INFO_BTF_MODULES; do \
      if grep -qx "CONFIG_$option=y" /tmp/given && ! grep -qx "CONFIG_$option=y" .config; then \
        echo "ERROR: the configuration has $option, which this toolchain cannot give" >&2; exit 1; fi; done; \
    make -s -j2 ARCH=x86_64 modules_prepare; \
    grep -qxF '6.1.176-coreos' include/config/kernel.release; test -s Module.symvers
ENV LC_ALL=C KBUILD_BUILD_TIMESTAMP=@1795161600 KBUILD_BUILD_USER=driver KBUILD_BUILD_HOST=driver SOURCE_DATE_EPOCH=1795161600

# NVIDIA's probes of the kernel's interfaces (a third of the time of a build): their answers depend on the headers, the
# flags and the probe script, which are the same for every kind, so they are asked once, and kept by the engine's cache
# between runs. Kbuild has no target for them alone; one small object needs them all.
FROM kernel AS probes
ADD modules.tar /in/
# modules.tar (layout 2): kernel modules' sources out of NVIDIA-Linux-x86_64-535.261.03.run
#   sha256 c2ea194c609f860ddfe9af49bfa3f585765b47dc0ad4669e8ea5356a92bd8d5b
RUN set -eu; mkdir -p /build; mv /in/kernel /build/nvidia
# JOBS decides how fast, never what.
ARG JOBS=2
RUN make -C /lib/modules/6.1.176-coreos/source KBUILD_OUTPUT=/lib/modules/6.1.176-coreos/build M=/build/nvidia -j"$JOBS" ARCH=x86_64 KCFLAGS=-g0 IGNORE_CC_MISMATCH=1 NV_KERNEL_MODULES="nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem" NV_SPECTRE_V2=0 \
      NV_KERNEL_SOURCES=/lib/modules/6.1.176-coreos/source NV_KERNEL_OUTPUT=/lib/modules/6.1.176-coreos/build nvidia/nv-dma.o

FROM kernel AS proprietary
ADD modules.tar /in/
# modules.tar (layout 2): kernel modules' sources out of NVIDIA-Linux-x86_64-535.261.03.run
#   sha256 c2ea194c609f860ddfe9af49bfa3f585765b47dc0ad4669e8ea5356a92bd8d5b
RUN set -eu; mkdir -p /build; mv /in/kernel /build/nvidia
COPY --from=probes /build/nvidia/conftest/ /build/nvidia/conftest/
ARG JOBS=2
RUN set -eu; make -C /build/nvidia KERNEL_UNAME=6.1.176-coreos -j"$JOBS" ARCH=x86_64 KCFLAGS=-g0 IGNORE_CC_MISMATCH=1 NV_KERNEL_MODULES="nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem" modules; \
    mkdir -p /out/opt/lib/modules/6.1.176-coreos; \
    for module in nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem; do \
      strip --strip-debug -o /out/opt/lib/modules/6.1.176-coreos/$module.ko /build/nvidia/$module.ko; done; \
    ln -s /host/lib/modules/6.1.176-coreos /out/opt/lib/modules/6.1.176-coreos/host; \
    touch /out/opt/lib/modules/6.1.176-coreos/modules.order /out/opt/lib/modules/6.1.176-coreos/modules.builtin /out/opt/lib/modules/6.1.176-coreos/modules.builtin.modinfo; \
    depmod -b /out/opt 6.1.176-coreos; \
    find /out -exec touch -h -d @1795161600 {} +

FROM kernel AS open
ADD modules.tar /in/
# modules.tar (layout 2): kernel modules' sources out of NVIDIA-Linux-x86_64-535.261.03.run
#   sha256 c2ea194c609f860ddfe9af49bfa3f585765b47dc0ad4669e8ea5356a92bd8d5b
RUN set -eu; mkdir -p /build; mv /in/kernel-open /build/nvidia
COPY --from=probes /build/nvidia/conftest/ /build/nvidia/conftest/
ARG JOBS=2
RUN set -eu; make -C /build/nvidia KERNEL_UNAME=6.1.176-coreos -j"$JOBS" ARCH=x86_64 KCFLAGS=-g0 IGNORE_CC_MISMATCH=1 NV_KERNEL_MODULES="nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem" modules; \
    mkdir -p /out/opt/open/lib/modules/6.1.176-coreos; \
    for module in nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem; do \
      strip --strip-debug -o /out/opt/open/lib/modules/6.1.176-coreos/$module.ko /build/nvidia/$module.ko; done; \
    ln -s /host/lib/modules/6.1.176-coreos /out/opt/open/lib/modules/6.1.176-coreos/host; \
    touch /out/opt/open/lib/modules/6.1.176-coreos/modules.order /out/opt/open/lib/modules/6.1.176-coreos/modules.builtin /out/opt/open/lib/modules/6.1.176-coreos/modules.builtin.modinfo; \
    depmod -b /out/opt/open 6.1.176-coreos; \
    find /out -exec touch -h -d @1795161600 {} +

FROM kernel AS out
COPY --from=proprietary /out/ /out/
COPY --from=open /out/ /out/
RUN set -eu; mkdir -p /out/opt/nvidia-driver; printf '%s\n' \
      'KERNEL=6.1.176-coreos' \
      'DRIVER=535.261.03' \
      'ARCH=amd64' \
      'KINDS="open proprietary"' \
      'RECOMMENDED=proprietary' \
      'MODULES="nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem"' \
      > /out/opt/nvidia-driver/image.env; chmod 0644 /out/opt/nvidia-driver/image.env; \
    find /out -exec touch -h -d @1795161600 {} +

FROM driver-userspace:e2ce5acffe86f657
COPY --from=out /out/ /
COPY program/ /
# 1310ca2c8932dbd118668bd97442558a3e1f546b5e15c69699dfbd6024f548d8  usr/bin/nvidia-driver
ENV PATH=/usr/local/nvidia/bin:/usr/sbin:/usr/bin:/sbin:/bin
LABEL io.coreos-nvidia.arch="amd64" io.coreos-nvidia.driver="535.261.03" io.coreos-nvidia.kernel="6.1.176-coreos" io.coreos-nvidia.kinds="open proprietary" io.coreos-nvidia.os="container-linux" org.opencontainers.image.created="2026-11-20T08:00:00Z" org.opencontainers.image.description="NVIDIA driver 535.261.03 for Linux 6.1.176-coreos" org.opencontainers.image.licenses="Apache-2.0 AND LicenseRef-NVIDIA-Driver" org.opencontainers.image.source="https://example.com/project" org.opencontainers.image.title="driver" org.opencontainers.image.version="6.1.176-coreos-535.261.03"
ENTRYPOINT ["/usr/bin/nvidia-driver"]
CMD ["init"]
