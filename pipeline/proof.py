"""The static proof before a push, on the files as they are in the image's layers.

1. Every expected module is there, for this kernel, of this driver, for this machine, without debug information.
2. Every symbol it wants is exported by the kernel or by a sibling, with equal CRC where the kernel uses MODVERSIONS,
   and a proprietary module takes no GPL-only one.
3. The userspace carries the modules' version. (Step 4, the boot, is in boot.py.)
What fails says it in the kernel's own words where it has some.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from .elf import Export, Module, read_module
from .errors import PairFailed

GPL_COMPATIBLE: Final = frozenset(
    ("GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL")
)
"""Linux ``include/linux/license.h``, license_is_gpl_compatible()."""
_LIBRARY: Final = re.compile(r"\.so\.([0-9]{3}\.[0-9]{2,3}(?:\.[0-9]{2}){0,2})$")
_NEEDED: Final = ("libcuda.so.", "libnvidia-ml.so.", "libnvidia-ptxjitcompiler.so.")
SPEAKING: Final = ("libcuda.so.", "libnvidia-ml.so.")
"""Those that hold their version as text, which they compare with the kernel module's at run time."""


def parse_symvers(text: str) -> dict[str, Export]:
    """``Module.symvers``: CRC, symbol, module, export type, namespace, separated by tabs (scripts/mod/modpost.c)."""
    table: dict[str, Export] = {}
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) >= 4:
            namespace = fields[4] if len(fields) > 4 else ""
            table[fields[1]] = Export(int(fields[0], 16), fields[2], fields[3].startswith("EXPORT_SYMBOL_GPL"), namespace)
    return table


def prove_modules(
    directory: Path,
    *,
    kernel: str,
    driver: str,
    kind: str,
    arch: str,
    expected: Sequence[str],
    symvers: Mapping[str, Export] | None,
    modversions: bool,
    kernel_symbols: Collection[str] | None = None,
) -> dict[str, Any]:
    """Steps 1 and 2 for the modules in ``directory`` (``…/lib/modules/<kernel>``).

    ``symvers`` is None where the kernel has none; then ``kernel_symbols`` are the names that it exports. Returns
    ``{"modules": {name: {version, srcversion, symbols}}}``. Raises PairFailed.
    """
    present = sorted(path.name for path in directory.glob("*.ko")) if directory.is_dir() else []
    if missing := sorted(set(expected) - set(present)):
        raise PairFailed(f"{kind}: {missing[0]} was not built")
    if extra := sorted(set(present) - set(expected)):
        raise PairFailed(f"{kind}: {extra[0]} is in the image and was not asked for")
    modules = [read_module(directory / name) for name in present]
    for module in modules:
        _identity(module, kernel, driver, kind, arch)
    if len({module.first("vermagic") for module in modules}) > 1:
        raise PairFailed(f"{kind}: the modules differ in vermagic")
    siblings = {symbol: export for module in modules for symbol, export in module.exports.items()}
    for module in modules:
        if symvers is not None:
            _symbols(module, siblings, symvers, kind, modversions)
        elif kernel_symbols is not None:
            if unknown := [s for s in module.undefined if s not in siblings and s not in kernel_symbols]:
                raise PairFailed(f"{kind}: {module.name}: unknown symbol {unknown[0]}")
        else:
            raise PairFailed("cannot be proved: neither Module.symvers nor a symbol table of the kernel is there")
    return {
        "modules": {
            module.name.removesuffix(".ko"): {
                "version": module.first("version"),
                "srcversion": module.first("srcversion"),
                "symbols": len(module.undefined),
            }
            for module in modules
        }
    }


def _identity(module: Module, kernel: str, driver: str, kind: str, arch: str) -> None:
    who = f"{kind}: {module.name}"
    magic = module.first("vermagic")
    if magic.split(" ", 1)[0] != kernel:
        raise PairFailed(f"{who}: version magic '{magic.strip()}' should be '{kernel}'")
    if module.first("version") != driver:
        raise PairFailed(f"{who} is version {module.first('version') or 'unknown'}, the driver is {driver}")
    if module.machine != arch:
        raise PairFailed(f"{who} is for {module.machine}, the kernel is {arch}")
    if module.debug:
        raise PairFailed(f"{who} carries debug information")


def _symbols(
    module: Module, siblings: Mapping[str, Export], symvers: Mapping[str, Export], kind: str, modversions: bool
) -> None:
    who = f"{kind}: {module.name}"
    free = module.first("license") in GPL_COMPATIBLE
    imported = set(module.info.get("import_ns", ()))
    if modversions and (known := symvers.get("module_layout")) and (layout := _layout_crc(module)) not in (None, known.crc):
        raise PairFailed(f"{who}: disagrees about version of symbol module_layout ({layout:#x}, the kernel has {known.crc:#x})")
    for symbol, crc in module.undefined.items():
        export = siblings.get(symbol) or symvers.get(symbol)
        if export is None:
            raise PairFailed(f"{who}: unknown symbol {symbol}")
        if modversions and symbol not in siblings and crc is None:
            raise PairFailed(f"{who}: no version for symbol {symbol}")
        if modversions and None not in (crc, export.crc) and crc != export.crc:
            raise PairFailed(f"{who}: disagrees about version of symbol {symbol}")
        if export.gpl_only and not free:
            raise PairFailed(f"{who}: uses GPL-only symbol {symbol}, its license is '{module.first('license')}'")
        if export.namespace and export.namespace not in imported:
            raise PairFailed(f"{who}: uses symbol {symbol} of namespace {export.namespace}, which it does not import")


def _layout_crc(module: Module) -> int | None:
    return module.versions.get("module_layout")


def prove_userspace(
    names: Iterable[str], *, driver: str, read: Callable[[str], bytes] | None = None
) -> dict[str, Any]:
    """Step 3. ``names`` are the paths of the userspace layer; ``read`` gives the bytes of the needed libraries.

    Every library with an NVIDIA version in its name must carry ``driver``, in its name and, for the needed ones, in its
    bytes; firmware lies under the driver's own version. Raises PairFailed.
    """
    libraries = 0
    needed = dict.fromkeys(_NEEDED, "")
    for name in names:
        file = name.rpartition("/")[2]
        if found := _LIBRARY.search(file):
            if found[1] != driver:
                raise PairFailed(f"userspace is {found[1]}, the modules are {driver}: {file}")
            libraries += 1
            for prefix in _NEEDED:
                if file.startswith(prefix) and "/lib64/" in name:
                    needed[prefix] = name
        parts = name.strip("/").split("/")
        if parts[:2] == ["firmware", "nvidia"] and len(parts) > 3 and parts[2] != driver:
            raise PairFailed(f"firmware is {parts[2]}, the modules are {driver}: {file}")
    for prefix, name in needed.items():
        if not name:
            raise PairFailed(f"userspace of {driver} has no {prefix}{driver}")
        if read is not None and prefix in SPEAKING and driver.encode() not in read(name):
            raise PairFailed(f"{name.rpartition('/')[2]} does not carry the version {driver} in it")
    return {"libraries": libraries}
