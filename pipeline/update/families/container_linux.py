"""CoreOS Container Linux, retired: the archived feed of its stable channel."""

from __future__ import annotations

from ...config.source_policy import ContainerLinux
from ...upstream.coreos import container_linux
from ..pinning import pin
from . import Family

FAMILY = Family(
    policy=ContainerLinux,
    discover=container_linux.discover,
    pin=pin.container_linux,
    names=lambda version: ("coreos", version),
    channels=lambda _policy: ("stable",),
)
