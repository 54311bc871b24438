# Made by 'doit render' from dockerfiles/userspace.Dockerfile.j2 and versions.lock. A file edited by hand is never built.
# The userspace and firmware of NVIDIA 535.261.03 (amd64): compute, video, OpenCL, OptiX, EGL/GL, Vulkan, tools.
# No X server drivers, no 32 bit.
FROM driver-base:936e0f9a9c032ac6 AS base
FROM driver-toolchain:0c2404e69ce0fde9 AS unpack
COPY --from=base / /root.cache/
ADD userspace.tar /
# userspace.tar (layout 2) is made of what its manifest says is userspace in NVIDIA-Linux-x86_64-535.261.03.run
#   sha256 c2ea194c609f860ddfe9af49bfa3f585765b47dc0ad4669e8ea5356a92bd8d5b
RUN set -eu; n=/out/usr/local/nvidia; mkdir -p $n/bin $n/lib64/vdpau $n/lib64/gbm $n/share/OpenCL/vendors $n/share/nvidia \
      /out/firmware/nvidia/535.261.03; ldconfig -n $n/lib64; \
    test -e $n/lib64/libcuda.so || ln -s libcuda.so.1 $n/lib64/libcuda.so; \
    : 'Relative links from where programs look into that one directory, so that they hold under any root.'; \
    mkdir -p /out/usr/bin /out/usr/lib64 /out/usr/lib/x86_64-linux-gnu/vdpau /out/usr/lib/x86_64-linux-gnu/gbm /out/etc/OpenCL/vendors \
      /out/usr/share/egl/egl_external_platform.d /out/usr/share/glvnd/egl_vendor.d /out/usr/share/vulkan/icd.d \
      /out/usr/share/vulkan/implicit_layer.d /out/usr/share/nvidia; \
    cd $n/bin; for f in *; do ln -s ../local/nvidia/bin/$f /out/usr/bin/$f; done; \
    cd $n/lib64; for f in *.so*; do ln -s ../local/nvidia/lib64/$f /out/usr/lib64/$f; \
      ln -s ../../local/nvidia/lib64/$f /out/usr/lib/x86_64-linux-gnu/$f; done; \
    for d in vdpau gbm; do cd $n/lib64/$d; for f in *.so*; do test ! -L $f -a ! -e $f || \
      ln -s ../../../local/nvidia/lib64/$d/$f /out/usr/lib/x86_64-linux-gnu/$d/$f; done; done; \
    cd $n/share; for f in egl/egl_external_platform.d/* glvnd/egl_vendor.d/* vulkan/icd.d/* vulkan/implicit_layer.d/*; do \
      test ! -e $f || ln -s ../../../local/nvidia/share/$f /out/usr/share/$f; done; \
    for f in nvidia/*; do test ! -e $f || ln -s ../../local/nvidia/share/$f /out/usr/share/$f; done; \
    test ! -e OpenCL/vendors/nvidia.icd || \
      ln -s ../../../usr/local/nvidia/share/OpenCL/vendors/nvidia.icd /out/etc/OpenCL/vendors/nvidia.icd; \
    : 'The linker cache of base and userspace together.'; \
    for d in bin lib lib64; do mkdir -p /out/usr/$d /root.cache/usr/$d; cp -a /out/usr/$d/. /root.cache/usr/$d/; done; \
    mkdir -p /root.cache/usr/local; mv $n /root.cache/usr/local/nvidia; ldconfig -r /root.cache; \
    mv /root.cache/usr/local/nvidia $n; cp -p /root.cache/etc/ld.so.cache /out/etc/ld.so.cache; rm -rf /root.cache; \
    find /out -exec touch -h -d @1795161600 {} +
FROM base
COPY --from=unpack /out/ /
