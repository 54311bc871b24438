"""``doit`` with two stand-ins, so that a pair takes a second: templates that compile nothing, and no proof of modules.

All else is the real thing: lock, fetching, the engine, assembly, the registry, the index, doit. Called as
``python tests/tiny_main.py WORD…`` in the folder of a project.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from doit.__main__ import main

from pipeline.build import pair as build
from pipeline.build import shared_layers
from pipeline.plan import render

render.TEMPLATES = Path(__file__).parent / "tiny"  # type: ignore[misc]
build.prove = lambda pair, kinds, layers, shop: {"modules": {kind: {} for kind in kinds}}
shared_layers.Workshop.prove_userspace = lambda self, layer, driver: None  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(main())
