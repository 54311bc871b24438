"""A checkout that follows the vendors' stand-ins, after its update and its build."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pipeline.build.pair import unpack_layer
from pipeline.config.records import Kernel
from tests.checkout import Checkout, Ran
from tests.standins import packing
from tests.standins.vendors import Vendors


@dataclass(frozen=True)
class World:
    """A checkout that follows the vendors, after its update and its build."""

    checkout: Checkout
    vendors: Vendors
    update: Ran
    build: Ran

    def kernel(self, name: str) -> Kernel:
        return next(k for k in self.checkout.space().lock.kernels if k.kernel == name)

    def module(self, name: str, folder: Path) -> Path:
        """nvidia.ko for that kernel, out of the image in the registry."""
        space = self.checkout.space()
        pair = next(p for p in space.plan.pairs if p.kernel.kernel == name)
        manifest = space.registry.manifest(pair.recipe_tag)
        assert manifest is not None
        layer = json.loads(manifest.data)["layers"][2]
        data = folder / "layer.tar.gz"
        space.registry.download_blob(layer["digest"], layer["size"], data)
        packing.run("tar", "-C", folder, "-xzf", data)
        (found,) = folder.glob("opt/**/nvidia.ko")
        return found

    def labels(self) -> list[dict[str, str]]:
        """Of the image of each pair."""
        space = self.checkout.space()
        manifests = [space.registry.manifest(pair.recipe_tag) for pair in space.plan.pairs]
        digests = [json.loads(manifest.data)["config"]["digest"] for manifest in manifests if manifest]
        return [json.loads(space.registry.blob(digest))["config"]["Labels"] for digest in digests]

    def base(self, folder: Path) -> Path:
        shop = self.checkout.space().shop
        unpack_layer(shop, shop.local(shop.base("amd64")), folder)
        return folder
