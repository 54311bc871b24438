"""``doit fetch``: pinned files on this machine, build contexts ready for ``docker build``."""

from __future__ import annotations

from typing import Any

from ...build.contexts import lay, root_tar, write
from ..workspace import Workspace
from .base import Plain, only_pairs


class Fetch(Plain):
    """``doit fetch [PATTERN …]``: lay out build contexts with every pinned file, for building by hand or offline."""

    name = "fetch"
    doc_purpose = "download pinned files and lay out the build contexts"
    doc_usage = "[PATTERN...]"
    doc_description = (
        "Prints the lines that build each pair by hand, in order. Afterwards doit needs nothing but engine and registry."
    )
    cmd_options = ()

    def work(self, space: Workspace, params: Any, args: list[str]) -> int:
        """Fetch for the selected pairs that are not excluded; not beside a run, which writes the same contexts."""
        only_pairs(args)
        with space.alone():
            _fetch(space, args)
        return 0


def _fetch(space: Workspace, args: list[str]) -> None:
    shop, renderer, progress = space.shop, space.renderer, space.progress
    laid: set[str] = set()
    for pair in space.plan.select(args):
        if pair.exclusion is not None:
            progress.note(pair.id, f"excluded, nothing is fetched: {pair.exclusion.reason}")
            continue
        own, unpacker = space.lock.toolchain(pair.kernel), space.lock.unpacker(pair.kernel.arch)
        toolchains = {renderer.toolchain(toolchain).tag: toolchain for toolchain in (own, unpacker)}
        below = (
            *(renderer.toolchain(toolchain) for toolchain in toolchains.values()),
            renderer.base(space.lock.base(pair.kernel.arch)),
            renderer.userspace(pair.driver),
        )
        for rendered in (*below, pair.rendered):
            if rendered.tag in laid:
                continue
            laid.add(rendered.tag)
            write(rendered, shop.docker, lambda line: progress.note("", line))
            with progress.step(rendered.name, "fetch", f"fetched {len(rendered.files)} files"):
                context = lay(rendered, shop.docker, shop.inputs)
                toolchain = toolchains.get(rendered.tag)
                if toolchain and toolchain.image is None:
                    root_tar(toolchain, context, shop.inputs)
            if toolchain and toolchain.image:
                name = f"{shop.mirror(toolchain.image.name)}@{toolchain.image.digest}"
                print(f"docker pull --platform linux/{toolchain.arch} {name} && docker tag {name} {toolchain.from_tag}")
            print(f"docker build --network none --tag {rendered.tag} {context.relative_to(space.root)}", flush=True)
        for file in pair.kernel.image:
            shop.inputs.path(file)
