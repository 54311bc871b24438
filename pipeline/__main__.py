"""``python -m pipeline``: ``doit``, where its script is not at hand."""

from __future__ import annotations

import sys

from .cli.program import main

sys.exit(main())
