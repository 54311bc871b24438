"""Synthetic bodies that the tests of HTTP send, and how they look at a refusal."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

import pytest

from pipeline.core.errors import NetworkError, PipelineError

DATA = random.Random(1).randbytes(300_000)
SUM = hashlib.sha256(DATA).hexdigest()
JSON = b'{"releases": [1, 2, 3]}'


def refusal(call: Callable[[], object], kind: type[PipelineError] = NetworkError) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return str(caught.value)
