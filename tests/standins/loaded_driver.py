"""Stand-ins for NVIDIA's kernel modules: tiny real modules of the same names, for what needs a driver that is loaded.

The real ones answer ENODEV where there is no GPU. These load, register the same devices, depend on each other in the same way,
and do nothing else. They are compiled in the pipeline's own toolchain against the same headers as the real ones.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

from pipeline.build import contexts
from tests.checkout import DRIVER, Checkout

MODULES = ("nvidia", "nvidia-uvm", "nvidia-modeset")

# delay: seconds that the module takes to come up; refuse: whether it then refuses, as one does whose GPU is broken.
_COMMON = r"""
#include <linux/module.h>
#include <linux/fs.h>
#include <linux/delay.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
static int delay, refuse;
module_param(delay, int, 0444);
module_param(refuse, int, 0444);
static const struct file_operations fops = { .owner = THIS_MODULE };
static int come_up(const char *name)
{
    int i;
    pr_emerg("stand-in %s " VERSION " comes up\n", name);
    for (i = 0; i < delay * 10; i++)
        msleep(100);
    return refuse ? -EIO : 0;
}
MODULE_LICENSE("GPL");
MODULE_VERSION(VERSION);
MODULE_DESCRIPTION("a stand-in for tests");
"""
_SOURCES = {
    "nvidia": r"""
void standin_core(void); void standin_core(void) {}
EXPORT_SYMBOL(standin_core);
static struct proc_dir_entry *top, *here;
static int show(struct seq_file *m, void *v)
{
    seq_puts(m, "NVRM version: NVIDIA UNIX x86_64 Kernel Module  " VERSION "  (a stand-in for tests)\n");
    return 0;
}
static int __init begin(void)
{
    int error = come_up("nvidia");
    if (error) return error;
    error = register_chrdev(195, "nvidia", &fops);
    if (error) return error;
    top = proc_mkdir("driver/nvidia", NULL);
    here = proc_create_single("driver/nvidia/version", 0444, NULL, show);
    return 0;
}
static void __exit end(void)
{
    remove_proc_subtree("driver/nvidia", NULL);
    unregister_chrdev(195, "nvidia");
    pr_emerg("stand-in nvidia is gone\n");
}
module_init(begin);
module_exit(end);
""",
    "nvidia-uvm": r"""
extern void standin_core(void);
static int major;
static int __init begin(void)
{
    int error = come_up("nvidia-uvm");
    if (error) return error;
    standin_core();
    major = register_chrdev(0, "nvidia-uvm", &fops);
    return major < 0 ? major : 0;
}
static void __exit end(void)
{
    unregister_chrdev(major, "nvidia-uvm");
    pr_emerg("stand-in nvidia-uvm is gone\n");
}
module_init(begin);
module_exit(end);
""",
    "nvidia-modeset": r"""
extern void standin_core(void);
static int __init begin(void)
{
    int error = come_up("nvidia-modeset");
    if (error) return error;
    standin_core();
    return 0;
}
static void __exit end(void) { pr_emerg("stand-in nvidia-modeset is gone\n"); }
module_init(begin);
module_exit(end);
""",
}


def compile_modules(checkout: Checkout, kernel: str, driver: str, folder: Path) -> dict[str, bytes]:
    """The stand-ins by name, for ``kernel``, with ``driver`` as their version."""
    shop, pair = checkout.space().shop, checkout.pair(kernel, DRIVER)
    said: list[str] = []
    # The stage that the real modules are compiled in: toolchain and headers. It is in the engine's cache where a pair was built.
    shop.toolchain(shop.renderer.lock.toolchain(pair.kernel))
    contexts.write(pair.rendered, shop.docker, said.append)
    context = contexts.lay(pair.rendered, shop.docker, shop.inputs)
    with_headers = f"driver-modules:{pair.recipe[:16]}-headers"
    shop.engine.build(context, tag=with_headers, log=said.append, target="kernel")
    folder.mkdir(parents=True)
    for name in MODULES:
        (folder / f"{name}.c").write_text(f'#define VERSION "{driver}"\n{_COMMON}{_SOURCES[name]}')
    (folder / "Kbuild").write_text("obj-m := " + " ".join(f"{name}.o" for name in MODULES) + "\n")
    (folder / "Dockerfile").write_text(
        f"FROM {with_headers}\nCOPY . /standins/\n"
        f"RUN make -C /lib/modules/{kernel}/build M=/standins modules && cd /standins && strip --strip-debug *.ko\n"
    )
    tag = f"driver-modules:{pair.recipe[:16]}-standins"
    try:
        shop.engine.build(folder, tag=tag, log=said.append)
        shop.engine.export(tag, "/standins", folder / "standins.tar")
    finally:
        shop.engine.remove(tag)
    made = {}
    with tarfile.open(folder / "standins.tar") as tar:
        for name in MODULES:
            stream = tar.extractfile(f"standins/{name}.ko")
            assert stream is not None
            made[name] = stream.read()
    return made


def image_files(kernel: str, driver: str, modules: dict[str, bytes]) -> dict[str, bytes]:
    """What lies in an image with these modules; the rest of it is the real image's."""
    kinds = "KINDS=proprietary\nRECOMMENDED=proprietary"
    env = f'KERNEL={kernel}\nDRIVER={driver}\nARCH=amd64\n{kinds}\nMODULES="{" ".join(MODULES)}"\n'
    library = "usr/local/nvidia/lib64/libnvidia-ml.so"
    return {
        "opt/nvidia-driver/image.env": env.encode(),
        f"{library}.{driver}": b"a stand-in",
        "usr/local/nvidia/bin/nvidia-smi": b"a stand-in",
        **{f"opt/lib/modules/{kernel}/{name}.ko": data for name, data in modules.items()},
    }
