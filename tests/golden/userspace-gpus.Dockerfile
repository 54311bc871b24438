# Made by 'doit render' from dockerfiles/userspace.Dockerfile.j2 and versions.lock. A file edited by hand is never built.
# The userspace and firmware of NVIDIA 535.261.03 (amd64): compute, video, OpenCL, OptiX, EGL/GL, Vulkan, tools.
# No X server drivers, no 32 bit.
FROM driver-base:936e0f9a9c032ac6 AS base
FROM driver-toolchain:0c2404e69ce0fde9 AS unpack
COPY --from=base / /root.cache/
ADD gpus.tar /
# gpus.tar (layout 2) is made of NVIDIA's lists of GPUs in
#   1f0ebe264e3238766c7357a1fff896e8c0073a5622431c0f1e024f9ad6cd8fa7  nvidia-vdpau-driver_535.261.03-1_amd64.deb
#   6e8ea62779406f220efa7d6952bcff201945bad6dcb5a9465148b6a4bd66fc07  nvidia-open-kernel-source_535.261.03-1_amd64.deb
COPY debs/ /in/
RUN set -eu; cd /in; printf '%s\n' \
    '65e1a016e35df57a547514b2d4ecf4b3e7d864dcca221b831099d8f78cd4ceed  libcuda1_535.261.03-1_amd64.deb' \
    '1f0ebe264e3238766c7357a1fff896e8c0073a5622431c0f1e024f9ad6cd8fa7  nvidia-vdpau-driver_535.261.03-1_amd64.deb' \
    | sha256sum --check --strict --quiet; \
    mkdir /x; \
    dpkg-deb --fsys-tarfile libcuda1_535.261.03-1_amd64.deb | tar -C /x -xf -; \
    dpkg-deb --fsys-tarfile nvidia-vdpau-driver_535.261.03-1_amd64.deb | tar -C /x -xf -; \
    : 'Licences, the text of each source package once.'; \
    l=/out/usr/share/licenses/nvidia-535.261.03; mkdir -p $l; \
    cp /x/usr/share/doc/libcuda1/copyright $l/libcuda1; \
    cp /x/usr/share/doc/nvidia-vdpau-driver/copyright $l/nvidia-vdpau-driver; \
    chmod 0644 $l/*; \
    rm -rf /x/usr/share/doc /x/usr/share/man /x/usr/share/bug /x/usr/share/lintian; \
    : 'Libraries in one directory, the nvidia-docker volume layout. The DLLs below wine/ are for another system.'; \
    n=/out/usr/local/nvidia; mkdir -p $n/bin $n/lib64/vdpau $n/lib64/gbm $n/share/OpenCL/vendors $n/share/nvidia; \
    find /x/usr/lib/x86_64-linux-gnu -type d -name wine -prune -o \( -type f -o -type l \) -name '*.so*' -exec mv -t $n/lib64/ {} +; \
    find $n/lib64 -maxdepth 1 -name 'libvdpau_nvidia.so*' -exec mv -t $n/lib64/vdpau/ {} +; \
    if test -L $n/lib64/nvidia-drm_gbm.so; then rm $n/lib64/nvidia-drm_gbm.so; \
      ln -s ../libnvidia-allocator.so.1 $n/lib64/gbm/nvidia-drm_gbm.so; fi; \
    test -L $n/lib64/libcuda.so || ln -s libcuda.so.1 $n/lib64/libcuda.so; \
    : 'Programs.'; \
    for dir in /x/usr/bin /x/usr/sbin /x/usr/lib/nvidia /x/usr/lib/nvidia/current; do test ! -d $dir || \
      find $dir -maxdepth 1 -type f -perm /111 -name 'nvidia-*' ! -name nvidia-sleep.sh -exec mv -t $n/bin/ {} +; done; \
    find $n/bin -type f -exec chmod 0755 {} +; \
    : 'What EGL, GBM, Vulkan, OpenCL and OptiX look for by name.'; \
    for dir in egl glvnd vulkan; do test ! -d /x/usr/share/$dir || mv /x/usr/share/$dir $n/share/; done; \
    test ! -e /x/etc/OpenCL/vendors/nvidia.icd || mv /x/etc/OpenCL/vendors/nvidia.icd $n/share/OpenCL/vendors/; \
    find /x/usr/lib -name nvoptix.bin -exec mv -t $n/share/nvidia/ {} +; \
    test ! -d /x/usr/share/nvidia || find /x/usr/share/nvidia -maxdepth 1 -type f -exec mv -t $n/share/nvidia/ {} +; \
    : 'Firmware of the GPU system processor.'; \
    mkdir -p /out/firmware/nvidia/535.261.03; \
    find /x -path '*/firmware/nvidia/535.261.03/*.bin' -exec mv -t /out/firmware/nvidia/535.261.03/ {} +; \
    rm -rf /x; \
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
