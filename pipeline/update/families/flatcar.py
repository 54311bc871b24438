"""Flatcar Container Linux: channels, and a developer container a release. All LTS lines are one channel in its feed's words."""

from __future__ import annotations

from ...config.source_policy import Flatcar
from ...upstream.coreos import flatcar
from ..pinning import pin
from . import Family

FAMILY = Family(
    policy=Flatcar,
    discover=flatcar.discover,
    pin=pin.flatcar,
    names=lambda version: ("flatcar", version),
    channels=lambda policy: {channel.partition("-")[0] for channel in policy.channels},
)
