"""Values that threads share are made once, as functools.cached_property does no more since Python 3.12."""

from __future__ import annotations

import ast
import copy
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.build.shared_layers import Workshop
from pipeline.cli import workspace
from pipeline.cli.workspace import Workspace
from pipeline.core import lazy as module
from pipeline.core.lazy import Locks, lazy
from tests import samples

ROOT = Path(__file__).parents[3]
THREADS = 8


class Lockless:
    """functools.cached_property as Python 3.12 has it: it looks, computes, and writes."""

    def __init__(self, make: Callable[[Any], object]) -> None:
        self.make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type | None = None) -> object:
        if self.name not in instance.__dict__:
            instance.__dict__[self.name] = self.make(instance)
        return instance.__dict__[self.name]


def at_once(ask: Callable[[], object]) -> list[object]:
    """What so many threads get that all ask at the same moment."""
    gate = threading.Barrier(THREADS, timeout=30)

    def asked(_: int) -> object:
        gate.wait()
        return ask()

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(asked, range(THREADS), timeout=60))


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """No test, and no failed value, leaves anything of its threads behind."""
    yield
    assert module._turns == {}


def counted(decorator: Callable[[Callable[[Any], object]], Any]) -> tuple[int, int]:
    """How often a slow value was computed for eight threads, and how many different ones they hold."""
    made: list[object] = []

    class Slow:
        @decorator
        def value(self) -> object:
            time.sleep(0.1)
            made.append(object())
            return made[-1]

    slow = Slow()
    return len({id(value) for value in at_once(lambda: slow.value)}), len(made)


def test_a_value_is_computed_once_however_many_threads_ask() -> None:
    assert counted(lazy) == (1, 1)


def test_without_a_lock_it_is_computed_more_than_once() -> None:
    """Else the test above would pass with what it is there to refuse."""
    assert counted(Lockless)[1] > 1


def test_where_the_computation_raises_the_next_one_tries_anew_and_nobody_waits_for_ever() -> None:
    tries: list[int] = []

    class Third:
        @lazy
        def value(self) -> int:
            tries.append(len(tries))
            time.sleep(0.01)
            if len(tries) < 3:
                raise OSError("not yet")
            return len(tries)

    third = Third()

    def ask() -> object:
        try:
            return third.value
        except OSError as error:
            return str(error)

    assert sorted(map(str, at_once(ask))) == ["3"] * (THREADS - 2) + ["not yet"] * 2
    assert tries == [0, 1, 2]
    assert third.value == 3


def test_a_value_may_need_other_values_and_one_that_needs_itself_is_an_error_not_a_standstill() -> None:
    class Circle:
        @lazy
        def first(self) -> int:
            return self.second + 1

        @lazy
        def second(self) -> int:
            return 1

        @lazy
        def round(self) -> int:
            return self.round + 1

    assert Circle().first == 2
    with pytest.raises(RecursionError):
        _ = Circle().round


def test_who_needs_another_value_or_another_object_does_not_wait() -> None:
    """With one lock an object, or one a class, the first thread would wait for the second and the second for the first."""
    others = threading.Event()

    class Two:
        @lazy
        def waits(self) -> bool:
            return others.wait(30)

        @lazy
        def ready(self) -> int:
            return 1

    one, other = Two(), Two()
    other.__dict__["waits"] = True
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(lambda: one.waits)
        while not module._turns:
            time.sleep(0.001)
        assert (one.ready, other.ready, other.waits) == (1, 1, True)
        others.set()
        assert waiting.result(30)


@dataclass(frozen=True)
class Frozen:
    text: str

    @lazy
    def length(self) -> int:
        """Letters."""
        return len(self.text)


class Struct(msgspec.Struct, frozen=True, dict=True):
    text: str

    @lazy
    def length(self) -> int:
        return len(self.text)


@pytest.mark.parametrize(("kind", "changed"), [(Frozen, replace), (Struct, msgspec.structs.replace)])
def test_frozen_objects_have_such_values_and_stay_equal_copied_and_replaced(kind: type[Any], changed: Callable[..., Any]) -> None:
    one, two = kind("abc"), kind("abc")
    assert one.length == 3
    assert (one == two, hash(one) == hash(two), repr(one) == repr(two)) == (True, True, True)
    assert [made.length for made in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one)))] == [3, 3, 3]
    assert changed(one, text="abcde").length == 5
    assert msgspec.json.encode(one) == b'{"text":"abc"}'


def test_what_has_no_room_for_a_value_is_refused_where_it_is_written() -> None:
    with pytest.raises((TypeError, RuntimeError)) as raised:

        class Full:
            __slots__ = ()

            @lazy
            def value(self) -> int:
                return 1

    error = raised.value if isinstance(raised.value, TypeError) else raised.value.__cause__  # as Python 3.11 wraps it
    assert str(error) == "Full has no room for 'value': its objects have no __dict__"


def test_the_class_tells_what_the_value_is() -> None:
    assert Frozen.length.__doc__ == "Letters."


def test_all_threads_get_the_same_lock_of_a_name() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        locks = Locks()
        for name in "abcdefgh" * 4:
            locks.pop(name, None)
            assert len({id(lock) for lock in at_once(partial(locks.__getitem__, name))}) == 1
        assert locks["a"] is not locks["b"]
    finally:
        sys.setswitchinterval(before)


PARTS = sorted(name for name, value in vars(Workspace).items() if isinstance(value, lazy))


@pytest.fixture
def slow_workshops(monkeypatch: pytest.MonkeyPatch) -> list[Workshop]:
    """Every workshop that is opened, which takes its time."""
    opened: list[Workshop] = []
    begin = Workshop.__post_init__

    def slowly(self: Workshop) -> None:
        time.sleep(0.1)
        begin(self)
        opened.append(self)

    monkeypatch.setattr(Workshop, "__post_init__", slowly)
    return opened


def test_eight_threads_that_begin_at_once_share_one_workshop(slow_workshops: list[Workshop]) -> None:
    space = Workspace(ROOT, {"DRIVER_CACHE": os.environ["XDG_CACHE_HOME"]})
    assert len({id(shop) for shop in at_once(lambda: space.shop)}) == len(slow_workshops) == 1


def test_without_a_lock_they_would_get_several(slow_workshops: list[Workshop], monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Lockless(Workspace.__dict__["shop"]._make)
    shop.__set_name__(Workspace, "shop")
    monkeypatch.setattr(Workspace, "shop", shop)
    space = Workspace(ROOT, {"DRIVER_CACHE": os.environ["XDG_CACHE_HOME"]})
    assert len({id(shop) for shop in at_once(lambda: space.shop)}) > 1


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_a_workspace_is_made_once(part: str) -> None:
    space = Workspace(ROOT, {"DRIVER_CACHE": os.environ["XDG_CACHE_HOME"]})
    assert len({id(value) for value in at_once(lambda: getattr(space, part))}) == 1


def test_what_the_threads_of_a_run_share_is_among_those_parts() -> None:
    assert {"lock", "renderer", "plan", "registry", "ledger", "fetcher", "inputs", "shop"} <= {*PARTS}


def test_there_is_one_workspace_and_one_pair_of_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workspace, "_open", {})
    try:
        assert len({id(space) for space in at_once(workspace.here)}) == 1
        plan = samples.plan()
        name = next(iter(plan._named))
        assert len({id(pair) for pair in at_once(lambda: plan._pair(name))}) == 1
    finally:
        sys.setswitchinterval(before)


def test_nothing_in_the_pipeline_is_cached_without_a_lock() -> None:
    """It costs a microsecond at the first use and nothing after: no hot value is worth an exception."""
    found = []
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            names += [node.attr] if isinstance(node, ast.Attribute) else []
            found += [str(path.relative_to(ROOT))] if "cached_property" in names else []
    assert found == []
