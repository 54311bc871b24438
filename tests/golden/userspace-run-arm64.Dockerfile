# Made by 'doit render' from dockerfiles/userspace.Dockerfile.j2 and versions.lock. A file edited by hand is never built.
# The userspace and firmware of NVIDIA 535.261.03 (arm64): compute, video, OpenCL, OptiX, EGL/GL, Vulkan, tools.
# No X server drivers, no 32 bit.
FROM driver-base:21fb0e07a4c421d8 AS base
FROM driver-toolchain:d41e2a5f94183a15 AS unpack
COPY --from=base / /root.cache/
ADD userspace.tar /
# userspace.tar (layout 2) is made of what its manifest says is userspace in NVIDIA-Linux-aarch64-535.261.03.run
#   sha256 771e782d3df3b0dcabe08937ed0b4e4709b9ddfcedd0d6dd4f78d6191223ad1e
RUN set -eu; n=/out/usr/local/nvidia; mkdir -p $n/bin $n/lib64/vdpau $n/lib64/gbm $n/share/OpenCL/vendors $n/share/nvidia \
      /out/firmware/nvidia/535.261.03; \
    cd $n/lib64; for f in *.so*; do aarch64-linux-gnu-objdump -p $f 2>/dev/null | sed -n 's/^ *SONAME *//p' | \
      while read -r name; do test -e $name -o -L $name || ln -s $f $name; done; done; cd /; \
    test -e $n/lib64/libcuda.so || ln -s libcuda.so.1 $n/lib64/libcuda.so; \
    : 'Relative links from where programs look into that one directory, so that they hold under any root.'; \
    mkdir -p /out/usr/bin /out/usr/lib64 /out/usr/lib/aarch64-linux-gnu/vdpau /out/usr/lib/aarch64-linux-gnu/gbm /out/etc/OpenCL/vendors \
      /out/usr/share/egl/egl_external_platform.d /out/usr/share/glvnd/egl_vendor.d /out/usr/share/vulkan/icd.d \
      /out/usr/share/vulkan/implicit_layer.d /out/usr/share/nvidia; \
    cd $n/bin; for f in *; do ln -s ../local/nvidia/bin/$f /out/usr/bin/$f; done; \
    cd $n/lib64; for f in *.so*; do ln -s ../local/nvidia/lib64/$f /out/usr/lib64/$f; \
      ln -s ../../local/nvidia/lib64/$f /out/usr/lib/aarch64-linux-gnu/$f; done; \
    for d in vdpau gbm; do cd $n/lib64/$d; for f in *.so*; do test ! -L $f -a ! -e $f || \
      ln -s ../../../local/nvidia/lib64/$d/$f /out/usr/lib/aarch64-linux-gnu/$d/$f; done; done; \
    cd $n/share; for f in egl/egl_external_platform.d/* glvnd/egl_vendor.d/* vulkan/icd.d/* vulkan/implicit_layer.d/*; do \
      test ! -e $f || ln -s ../../../local/nvidia/share/$f /out/usr/share/$f; done; \
    for f in nvidia/*; do test ! -e $f || ln -s ../../local/nvidia/share/$f /out/usr/share/$f; done; \
    test ! -e OpenCL/vendors/nvidia.icd || \
      ln -s ../../../usr/local/nvidia/share/OpenCL/vendors/nvidia.icd /out/etc/OpenCL/vendors/nvidia.icd; \
    : 'No linker cache: ldconfig here reads no libraries of another machine. They lie where the linker looks by itself.'; \
    rm -rf /root.cache; \
    find /out -exec touch -h -d @1795161600 {} +
FROM base
COPY --from=unpack /out/ /
