"""``doit`` with a build step that stands in for the real one: no engine, no compiler, an image of one small file a pair.

    cd CHECKOUT && STAND_IN_SECONDS=0.2 python -m bench.stand_in [what doit takes]

For what is not about compiling: many pairs at once, kills at any moment, many runners over one registry. All else is real:
command, tasks, state, locks, registry, index. A pair "compiles" for ``STAND_IN_SECONDS`` (default 0): as a process that
computes where ``STAND_IN_WORK=1``, else asleep. Its layer has ``STAND_IN_BYTES`` of noise, by default none. ``$STAND_IN_LOG``
gets a line ``begin ID`` and one ``end ID`` a build.
"""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from doit.doit_cmd import DoitMain

import pipeline.build.pair
from pipeline.build.assemble import assemble, tree
from pipeline.build.pair import publish
from pipeline.build.shared_layers import Workshop
from pipeline.core.tags import RECIPE_LABEL, label
from pipeline.outcomes.index import Bytes, Entry, Seconds, entry_of
from pipeline.plan.pairs import Pair

_WORK = "import sys, time\nend = time.process_time() + float(sys.argv[1])\nwhile time.process_time() < end: pass"


def build(pair: Pair, shop: Workshop) -> Entry:
    """An outcome like that of pipeline.build.pair.build: the same bytes from the same recipe."""
    _log(f"begin {pair.id}")
    seconds = float(os.environ.get("STAND_IN_SECONDS", "0"))
    shop.log(pair.id).write_text(f"stands in for compiling {pair.id}\n")
    with shop.progress.step(pair.id, "build", "stood in for compiling"):
        if os.environ.get("STAND_IN_WORK") == "1":
            subprocess.run([sys.executable, "-S", "-c", _WORK, str(seconds)], check=True)
        else:
            time.sleep(seconds)
    _log(f"end {pair.id}")
    with shop.progress.step(pair.id, "assemble", "assembled"):
        layer = shop.store.add(_files(pair, int(os.environ.get("STAND_IN_BYTES", "0"))), 0, passing=True)
    labels = {RECIPE_LABEL: f"sha256:{pair.recipe}", label("kinds"): " ".join(pair.kinds)}
    labels["org.opencontainers.image.created"] = pair.kernel.date
    image = assemble([layer], arch=pair.kernel.arch, epoch=0, labels=labels, names=["stand-in"], program=False)
    with shop.progress.step(pair.id, "push", "pushed"):
        shop.push_image(image, [pair.recipe_tag])
        publish(pair, image.digest, image.manifest, shop)
    shop.store.drop(layer)
    shop.progress.event("outcome", pair.id, f"built {image.digest[:19]}", outcome="built", bytes=image.size)
    return entry_of(
        pair,
        "built",
        kinds=pair.kinds,
        tags=pair.tags,
        digest=image.digest,
        bytes=Bytes(image.size, layer.size),
        seconds=Seconds(seconds, 1.5),
        built=pair.kernel.date,
    )


class _Noise(io.RawIOBase):
    """Bytes that nothing compresses, the same from the same ``seed``."""

    def __init__(self, seed: str) -> None:
        self._dice = random.Random(seed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        buffer[:] = self._dice.randbytes(len(buffer))
        return len(buffer)


def _files(pair: Pair, size: int) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """What stands in for modules: a file of ``size`` bytes, made as it is read, and one with the recipe."""
    if size:
        noise = tarfile.TarInfo("noise")
        noise.size = size
        yield noise, io.BufferedReader(_Noise(pair.recipe), 1 << 16)
    yield from tree({"recipe": (0o644, pair.recipe.encode())})


def _log(line: str) -> None:
    if place := os.environ.get("STAND_IN_LOG"):
        with Path(place).open("a", encoding="utf-8") as log:
            log.write(f"{line}\n")


def main(words: Sequence[str] | None = None) -> int:
    """Run ``doit WORDS``, those of the command line where none are given, with that step; its exit status."""
    pipeline.build.pair.build = build
    return int(DoitMain().run(sys.argv[1:] if words is None else list(words)) or 0)


if __name__ == "__main__":
    sys.exit(main())
