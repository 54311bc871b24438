"""Fedora CoreOS: streams and builds of its own, Fedora's kernel packages."""

from __future__ import annotations

from ...config.source_policy import FedoraCoreOS
from ...upstream.coreos import fedora_coreos
from ...upstream.coreos.fcos_metadata import day
from ..pinning import pin
from . import Family

FAMILY = Family(
    policy=FedoraCoreOS,
    discover=fedora_coreos.discover,
    pin=pin.fedora_coreos,
    names=lambda version: ("fedora", version.partition(".")[0]),
    channels=lambda policy: policy.streams,
    day=day,
)
