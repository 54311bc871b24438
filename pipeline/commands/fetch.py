"""``doit fetch``: pinned files on this machine, build contexts ready for ``docker build``."""

from __future__ import annotations

from typing import Any

from ..contexts import lay, root_tar, write
from ..errors import UsageError
from ..workspace import Workspace
from .plain import Plain


class Fetch(Plain):
    """``doit fetch [PATTERN …]``: lay out build contexts with every pinned file, for building by hand or offline."""

    name = "fetch"
    doc_purpose = "download pinned files and lay out the build contexts"
    doc_usage = "[PATTERN...]"
    doc_description = "Afterwards everything below build/docker can be built with docker build, and doit needs no network."
    cmd_options = ()

    def work(self, space: Workspace, params: Any, args: list[str]) -> int:
        """Fetch for the selected pairs that are not excluded."""
        for pattern in args:
            if not pattern.startswith("image"):
                raise UsageError(f"'{pattern}' is no pattern of pairs", hint="it looks like 'image:*6.1.0-50*'")
        shop, renderer = space.shop, space.renderer
        for pair in space.plan.select(args):
            if pair.exclusion is not None:
                continue
            toolchain = space.lock.toolchain(pair.kernel)
            texts = [renderer.base(space.lock.base(pair.kernel.arch)), renderer.userspace(pair.driver), pair.rendered]
            for rendered in (renderer.toolchain(toolchain), *texts):
                write(rendered, shop.docker, lambda line: space.progress.note("", line))
                context = lay(rendered, shop.docker, shop.inputs)
                if rendered.name.startswith("toolchain/"):
                    root_tar(toolchain, context, shop.inputs)
                print(f"docker build --network none --tag {rendered.tag} {context.relative_to(space.root)}")
            for file in pair.kernel.image:
                shop.inputs.path(file)
        return 0
