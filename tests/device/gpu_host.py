"""Compares what ``nvidia-driver`` made on a real GPU host with what that host has; called by ``check_gpu_host.sh``.

Standard library alone, since such a host has nothing of ours. Prints what it compared; ends 1 where something differs.
"""

from __future__ import annotations

import ctypes
import json
import re
import struct
import sys
from pathlib import Path
from typing import Any

UUID = re.compile(r"UUID: (GPU-[0-9a-f-]+)")


def wrong(text: str) -> None:
    """Note a difference."""
    print(f"differs: {text}")
    differences.append(text)


def same(what: str, ours: object, theirs: object) -> None:
    if ours == theirs:
        print(f"{what}: {len(ours) if isinstance(ours, set | list) else ours}")
    else:
        wrong(f"{what}: ours {ours!r}, the machine's {theirs!r}")


differences: list[str] = []


def status(document: Path, listed: Path) -> None:
    """Driver, kind, GPUs and modules of ``status --json``."""
    ours = json.loads(document.read_text())
    text = Path("/proc/driver/nvidia/version").read_text()
    same("driver", ours["loaded"]["driver"], Path("/sys/module/nvidia/version").read_text().strip())
    same("kind", ours["loaded"]["kind"], "open" if "Open Kernel Module" in text else "proprietary")
    same("kernel", ours["kernel"], Path("/proc/sys/kernel/osrelease").read_text().strip())
    loaded = {path.name.replace("_", "-") for path in Path("/sys/module").glob("nvidia*") if (path / "initstate").exists()}
    known = {"nvidia", "nvidia-uvm", "nvidia-modeset", "nvidia-drm", "nvidia-peermem"}
    same("modules", set(ours["loaded"]["modules"]), (loaded or set(ours["loaded"]["modules"])) & known)
    same("GPUs", len(ours["gpus"]), len(UUID.findall(listed.read_text())))
    for gpu in ours["gpus"]:
        information = Path(f"/proc/driver/nvidia/gpus/{gpu['address']}/information").read_text()
        same("minor", gpu["minor"], int(re.search(r"Device Minor:\s*(\d+)", information)[1]))  # type: ignore[index]
        same("bound to", gpu["bound_to"], "nvidia")
        same("model", gpu["model"], re.search(r"Model:\s*(.+)", information)[1].strip())  # type: ignore[index]


def soname(library: Path) -> str | None:
    """DT_SONAME of a 64-bit ELF file, read from its section headers; None where it has none."""
    data = library.read_bytes()
    if data[:5] != b"\x7fELF\x02":
        return None
    start, size, count = (*struct.unpack_from("<Q", data, 40), *struct.unpack_from("<HH", data, 58))
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, start + index * size) for index in range(count)]
    for section in sections:
        if section[1] != 6:  # SHT_DYNAMIC
            continue
        strings = sections[section[6]][4]
        for place in range(section[4], section[4] + section[5], 16):
            tag, value = struct.unpack_from("<QQ", data, place)
            if tag == 14:  # DT_SONAME
                return data[strings + value : data.index(b"\0", strings + value)].decode()
    return None


def cdi(document: Path, tree: Path, version: str, listed: Path) -> None:
    """Devices, nodes, libraries by version and by soname, firmware, programs of the specification."""
    spec: dict[str, Any] = json.loads(document.read_text())
    uuids = UUID.findall(listed.read_text())
    names = {str(number) for number in range(len(uuids))} | set(uuids) | {"all"}
    same("device names", {device["name"] for device in spec["devices"]}, names)
    everything = next(device for device in spec["devices"] if device["name"] == "all")
    own = {node["path"] for node in everything["containerEdits"]["deviceNodes"]}
    gpus = {str(path) for path in Path("/dev").glob("nvidia[0-9]*")} | {str(path) for path in Path("/dev/dri").glob("[cr]*[0-9]")}
    same("nodes of all GPUs", {node for node in own if "nvidia-cap" not in node}, gpus)
    common = {node["path"] for node in spec["containerEdits"]["deviceNodes"]}
    control = ("nvidiactl", "nvidia-modeset", "nvidia-uvm", "nvidia-uvm-tools")
    same("common nodes", common, {f"/dev/{name}" for name in control if Path(f"/dev/{name}").exists()})
    for node in sorted(own | common):
        if not Path(node).is_char_device():
            wrong(f"{node} is no character device")
    mounts = spec["containerEdits"]["mounts"]
    for mount in mounts:
        if not Path(mount["hostPath"]).exists():
            wrong(f"{mount['hostPath']} is not on this machine")
    targets = {Path(mount["containerPath"]).name for mount in mounts}
    hooks = json.dumps(spec["containerEdits"].get("hooks", []))
    libraries = sorted(path for path in (tree / "lib64").rglob(f"*.so.{version}") if path.is_file() and not path.is_symlink())
    mounted = {mount["hostPath"] for mount in mounts}
    same("libraries that are not mounted", {str(path) for path in libraries if str(path) not in mounted}, set())
    print(f"libraries of {version}: {len(libraries)}")
    lacking = set()
    for library in libraries:
        name = soname(library)
        if (
            name
            and (library.parent / name).exists()
            and name not in targets
            and f"::{name}" not in hooks
            and f"/{name}" not in hooks
        ):
            lacking.add(name)
    same("sonames that a container would miss", lacking, set())
    path = Path("/sys/module/firmware_class/parameters/path").read_text().strip()
    places = [Path(place) / "nvidia" / version for place in (path, "/lib/firmware") if place]
    firmware = next((sorted(place.glob("gsp*.bin")) for place in places if place.is_dir()), [])
    same("firmware", {str(file) for file in firmware}, {name for name in mounted if "/gsp" in name})
    tools = {f"{tree}/bin/{name}" for name in ("nvidia-smi", "nvidia-persistenced") if (tree / "bin" / name).exists()}
    same("programs", {name for name in tools if name in mounted}, tools)


def cuda(directory: Path) -> None:
    """A call of each sort through libcuda: versions, a context, memory written on the device and read back."""
    library = ctypes.CDLL("libcuda.so.1")

    def call(name: str, *arguments: object) -> None:
        result = getattr(library, name)(*arguments)
        if result:
            sys.exit(f"{name} answered {result}")

    number, device = ctypes.c_int(), ctypes.c_int()
    context, memory, size = ctypes.c_void_p(), ctypes.c_uint64(), 1 << 20
    call("cuInit", 0)
    call("cuDriverGetVersion", ctypes.byref(number))
    print(f"CUDA driver interface {number.value // 1000}.{number.value % 1000 // 10}")
    call("cuDeviceGetCount", ctypes.byref(number))
    print(f"devices: {number.value}")
    call("cuDeviceGet", ctypes.byref(device), 0)
    name = ctypes.create_string_buffer(100)
    call("cuDeviceGetName", name, 100, device)
    print(f"device 0: {name.value.decode()}")
    call("cuCtxCreate_v2", ctypes.byref(context), 0, device)
    call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(size))
    call("cuMemsetD8_v2", memory, ctypes.c_ubyte(0xA5), ctypes.c_size_t(size))
    back = ctypes.create_string_buffer(size)
    call("cuMemcpyDtoH_v2", back, memory, ctypes.c_size_t(size))
    same("bytes read back as written", back.raw.count(b"\xa5"), size)
    call("cuMemFree_v2", memory)
    call("cuCtxDestroy_v2", context)
    maps = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libcuda" in line}
    same("libcuda came from the volume", {str(Path(path).parent) for path in maps}, {str(directory)})


if __name__ == "__main__":
    what, *words = sys.argv[1:]
    if what == "status":
        status(*map(Path, words))
    elif what == "cdi":
        cdi(Path(words[0]), Path(words[1]), words[2], Path(words[3]))
    else:
        cuda(Path(words[0]))
    sys.exit(1 if differences else 0)
