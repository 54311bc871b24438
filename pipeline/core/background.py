"""Work beside the main thread that a Ctrl-C does not have to wait for.

A pool of ``concurrent.futures`` is waited for where its block ends and again at the program's end, so a silent server would
hold a person for as long as its time limit and all its retries are. What runs here ends with the program at any moment: it reads,
or writes what is whole or not there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Found = TypeVar("Found")


def aside(function: Callable[Given, Found], /, *args: Given.args, **kwargs: Given.kwargs) -> Future[Found]:
    """Begin ``function`` in a thread of its own; ``result()`` gives what it gave, or raises what it raised."""
    future: Future[Found] = Future()

    def run() -> None:
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - raised again by result()
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
