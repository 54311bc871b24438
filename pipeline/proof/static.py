"""The static proof before a push, on the files as they are in the image's layers.

1. Every expected module is there, for this kernel, of this driver, for this machine, without debug information.
2. Every symbol it wants is exported by the kernel or by a sibling, with equal CRC where the kernel uses MODVERSIONS,
   its namespace imported, and a proprietary module takes no GPL-only one.
3. The userspace carries the modules' version. (Step 4, the boot, is in boot.py.)
What fails says it in the kernel's own words where it has some (Linux ``kernel/module/main.c``, ``version.c``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from ..core.errors import PairFailed
from ..core.versions import DriverVersion, KernelRelease
from ..formats.kernels.kernel_module import Export, Module, fwversion, read_module

GPL_COMPATIBLE: Final = frozenset(("GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"))
"""Linux ``include/linux/license.h``, license_is_gpl_compatible()."""
_GPL_TYPES: Final = frozenset(("EXPORT_SYMBOL_GPL", "EXPORT_UNUSED_SYMBOL_GPL"))
_TAINT_INHERITED: Final = (5, 9, 0)
"""Since this kernel a module cannot take GPL-only symbols and those of a proprietary module (inherit_taint())."""
_FIRST_OPEN: Final = (515, 0)
"""The first branch with open modules, which run on GSP firmware alone."""
_LIBRARY: Final = re.compile(r"\.so\.([0-9]{3}\.[0-9]{2,3}(?:\.[0-9]{2}){0,2})$")
_VERSION_TEXT: Final = re.compile(rb"(?<=\0)([0-9]{3}\.[0-9]{2,3}\.[0-9]{2})(?=\0)")
_NEEDED: Final = ("libcuda.so.", "libnvidia-ml.so.", "libnvidia-ptxjitcompiler.so.")
SPEAKING: Final = ("libcuda.so.", "libnvidia-ml.so.", "gsp")
"""Beginnings of names of files that hold their version as text: libraries, which compare it with the kernel module's
at run time, and GSP firmware, which the module compares with its own."""


def parse_symvers(text: str) -> dict[str, Export]:
    """``Module.symvers``: CRC, symbol, module, export type, namespace, separated by tabs (scripts/mod/modpost.c).

    Kernels 5.4 to 5.6 have the namespace before the module; older ones have none. A CRC of zero is one that the kernel
    does not know. Raises PairFailed for a line that is none of these.
    """
    table: dict[str, Export] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split("\t")
        kinds = [n for n, field in enumerate(fields) if n in (3, 4) and field.startswith("EXPORT_")]
        try:
            crc, symbol = int(fields[0], 16), fields[1]
            kind = kinds[0]
        except (ValueError, IndexError) as error:
            raise PairFailed(f"cannot be proved: line {number} of Module.symvers is '{line[:80]}'") from error
        namespace = fields[2] if kind == 4 else "".join(fields[4:5])
        table[symbol] = Export(crc or None, fields[kind - 1], fields[kind] in _GPL_TYPES, namespace)
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
    ``{"modules": {name: {version, srcversion, symbols}}}``, ``symbols`` the number that it wants. Raises PairFailed.
    """
    present = {path.name: path for path in directory.rglob("*.ko*")} if directory.is_dir() else {}
    if missing := sorted(set(expected) - set(present)):
        raise PairFailed(f"{kind}: {missing[0]} was not built")
    if extra := sorted(set(present) - set(expected)):
        raise PairFailed(f"{kind}: {extra[0]} is in the image and was not asked for")
    modules = [read_module(present[name]) for name in sorted(present)]
    for module in modules:
        _identity(module, kernel, driver, kind, arch, modversions)
    magics = {module.first("vermagic"): module.name for module in modules}
    if len(magics) > 1:
        (one, name), (other, _) = sorted(magics.items())[:2]
        raise PairFailed(f"{kind}: {name}: vermagic is '{one.strip()}', that of another module '{other.strip()}'")
    siblings = {symbol: (export, module) for module in modules for symbol, export in module.exports.items()}
    for module in modules:
        if symvers is not None:
            _symbols(module, siblings, symvers, kind, kernel, modversions)
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


def _free(module: Module) -> bool:
    return all(text in GPL_COMPATIBLE for text in module.info.get("license", ("unspecified",)))


def _identity(module: Module, kernel: str, driver: str, kind: str, arch: str, modversions: bool) -> None:
    who = f"{kind}: {module.name}"
    magic = module.first("vermagic").strip()
    words = magic.split(" ")
    if words[0] != kernel:
        raise PairFailed(f"{who}: vermagic is '{magic}', the kernel is {kernel}")
    if modversions and "modversions" not in words:
        raise PairFailed(f"{who}: vermagic is '{magic}', the kernel uses modversions")
    # nvidia-uvm of 470 names no version; nvidia, without which it does not load, does in every branch.
    if module.first("version") != driver and (module.name == "nvidia.ko" or module.first("version")):
        raise PairFailed(f"{who} is version {module.first('version') or 'unknown'}, the driver is {driver}")
    if module.machine != arch:
        raise PairFailed(f"{who} is for {module.machine}, the kernel is {arch}")
    if module.debug:
        raise PairFailed(f"{who} carries debug information")
    if module.name == "nvidia.ko" and _free(module) != (kind == "open"):
        raise PairFailed(f"{who}: license is '{module.first('license')}', which is not that of the {kind} modules")


def _symbols(
    module: Module,
    siblings: Mapping[str, tuple[Export, Module]],
    symvers: Mapping[str, Export],
    kind: str,
    kernel: str,
    modversions: bool,
) -> None:
    who = f"{kind}: {module.name}"
    if modversions:
        _layout(module, symvers.get("module_layout"), who)
    if taken := [s for s in module.exports if s in symvers and symvers[s].module == "vmlinux"]:
        raise PairFailed(f"{who}: exports duplicate symbol {taken[0]} (owned by kernel)")
    free, proprietary, gpl_only = _free(module), "", ""
    for symbol, crc in module.undefined.items():
        export, owner = siblings.get(symbol, (symvers.get(symbol), None))
        if export is None:
            raise PairFailed(f"{who}: unknown symbol {symbol}")
        if modversions and export.crc is not None and crc != export.crc:
            if crc is None:
                raise PairFailed(f"{who}: no symbol version for {symbol}")
            raise PairFailed(f"{who}: disagrees about version of symbol {symbol}")
        if export.gpl_only and not free:
            raise PairFailed(f"{who}: uses GPL-only symbol {symbol}, its license is '{module.first('license')}'")
        if export.namespace and not _imports(module, export.namespace):
            raise PairFailed(f"{who}: uses symbol {symbol} from namespace {export.namespace}, but does not import it")
        gpl_only = gpl_only or (symbol if export.gpl_only else "")
        proprietary = proprietary or (symbol if owner and not _free(owner) else "")
    if gpl_only and proprietary and KernelRelease(kernel).order[0] >= _TAINT_INHERITED:
        raise PairFailed(f"{who}: uses GPL-only symbol {gpl_only} and symbol {proprietary} of a proprietary module")


def _layout(module: Module, known: Export | None, who: str) -> None:
    """The kernel asks for this one first, though no module names it (check_modstruct_version())."""
    crc = module.versions.get("module_layout")
    if known is None or known.crc is None or crc == known.crc:
        return
    if crc is None:
        raise PairFailed(f"{who}: no symbol version for module_layout")
    text = f"({crc:#010x}, the kernel has {known.crc:#010x})"
    raise PairFailed(f"{who}: disagrees about version of symbol module_layout {text}")


def _imports(module: Module, namespace: str) -> bool:
    """True where ``module`` may use symbols of ``namespace``; ``module:a,b*`` names the only modules that may."""
    if namespace.startswith("module:"):
        own = module.name.removesuffix(".ko").replace("-", "_")
        return any(fnmatchcase(own, pattern) for pattern in namespace.removeprefix("module:").split(","))
    return namespace in module.info.get("import_ns", ())


def prove_userspace(names: Iterable[str], *, driver: str, read: Callable[[str], bytes] | None = None) -> dict[str, Any]:
    """Step 3. ``names`` are the paths of the userspace layer; ``read`` gives the bytes of what SPEAKING names.

    Every library with an NVIDIA version in its name must carry ``driver``, in its name and, where it speaks, in its
    bytes. Firmware lies under the driver's own version, and is there where the branch has open modules. Returns
    ``{"libraries": count, "firmware": [names]}``. Raises PairFailed.
    """
    has_open = DriverVersion(driver).numbers >= _FIRST_OPEN
    needed = dict.fromkeys(_NEEDED, "")
    firmware: dict[str, str] = {}
    libraries = 0
    for name in names:
        folder, _, file = name.removeprefix("./").strip("/").rpartition("/")
        if folder.startswith("usr/local/nvidia/") and (found := _LIBRARY.search(file)):
            if found[1] != driver:
                raise PairFailed(f"userspace is {found[1]}, the modules are {driver}: {file}")
            libraries += 1
            needed |= {prefix: name for prefix in _NEEDED if file == prefix + driver and folder.endswith("/lib64")}
        if folder.startswith("firmware/nvidia/"):
            if (version := folder.split("/")[2]) != driver:
                raise PairFailed(f"firmware is {version}, the modules are {driver}: {file}")
            firmware |= {file: name} if fnmatchcase(file, "gsp*.bin") else {}
    if lacking := [prefix for prefix, name in needed.items() if not name]:
        raise PairFailed(f"userspace of {driver} has no {lacking[0]}{driver}")
    if has_open and not firmware:
        raise PairFailed(f"userspace of {driver} has no firmware/nvidia/{driver}/gsp*.bin for its open modules")
    if read is not None:
        for prefix in (prefix for prefix in _NEEDED if prefix in SPEAKING):
            _library(prefix + driver, read(needed[prefix]), driver)
        for file, name in sorted(firmware.items()) if has_open else ():
            if (version := fwversion(read(name))) != driver:
                raise PairFailed(f"firmware is {version or 'of unknown version'}, the modules are {driver}: {file}")
    return {"libraries": libraries, "firmware": sorted(firmware)}


def _library(name: str, data: bytes, driver: str) -> None:
    """The version is a string of its own, between two NULs (seen in 535.261.03 and 535.309.01)."""
    if b"\0" + driver.encode() + b"\0" in data:
        return
    branch = driver.split(".", 1)[0].encode() + b"."
    if others := [text for text in _VERSION_TEXT.findall(data) if text.startswith(branch)]:
        raise PairFailed(f"userspace is {others[0].decode()}, the modules are {driver}: {name} by its content")
    raise PairFailed(f"{name} does not carry the version {driver} in it")
