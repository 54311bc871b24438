"""A driver out of NVIDIA's own run file: got, measured, held against a published sum where there is one, and looked into.

Nothing of it is run. Its manifest says what it is made of; both kinds are pinned where both lie in it.
"""

from __future__ import annotations

from typing import Final

from . import runfile
from .errors import IntegrityError, NotFoundError, UpstreamDataError
from .means import Means, Unpinned
from .pin_kernels import today
from .pinned import Arch, Driver, Trust
from .upstream.nvidia_files import parse_sha256sum, runfile_name, sha256sum_url, tesla_url, xfree86_url
from .upstream.nvidia_policy import Chosen
from .versions import DriverVersion

_MAX: Final = 2 << 30


def run_file(chosen: Chosen, arch: Arch, means: Means) -> Driver | Unpinned:
    """The data-centre run file of a version, or the consumer one.

    Raises NotFoundError where neither is there, IntegrityError for one that is not what its sum or its manifest says.
    """
    assert means.take is not None
    version = DriverVersion(chosen.version)
    urls = (tesla_url(version, arch), xfree86_url(version, arch))
    taken = means.take(urls, _MAX)
    trust: Trust = "tls-first-sight"
    try:
        said = parse_sha256sum(
            means.get(sha256sum_url(version, arch), True), sha256sum_url(version, arch), runfile_name(version, arch)
        )
    except NotFoundError:
        pass
    else:
        trust = "vendor-sum"
        if said != taken.sha256:
            raise IntegrityError(f"{taken.url} is not what {sha256sum_url(version, arch)} says", hint="nothing of it is used")
    manifest, files = runfile.read(taken.path, means.max_unpacked)
    if manifest.version != chosen.version:
        raise UpstreamDataError(f"{taken.url} holds driver {manifest.version}", hint="nothing of it is used")
    pin = (taken.pin("NVIDIA-Linux", chosen.version, trust, urls),)
    has_open = any(name.startswith("kernel-open/") for name in files)
    has_proprietary = any(name.startswith("kernel/") for name in files)
    kinds = {"open": has_open, "proprietary": has_proprietary}
    if missing := [kind for kind in chosen.required if not kinds[kind]]:
        return Unpinned(f"its run file has no {missing[0]} module sources, which versions.toml requires", taken.url)
    return Driver(
        version=chosen.version,
        arch=arch,
        source="run",
        date=today(),
        open=pin if has_open else (),
        proprietary=pin if has_proprietary else (),
        userspace=pin,
        required=chosen.required,
    )
