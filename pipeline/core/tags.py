"""The one grammar of what a registry holds: tags and labels of images. Pure.

| tag | names |
|---|---|
| ``<kernel>-<nvidia>``, ``<kernel>-<branch>`` | a pair's image, the newest of a branch |
| ``<nvidia>-<kernel>-<os>``, ``<branch>-<kernel>-<os>`` | the same as the GPU Operator asks for them |
| ``r-<16>``, ``failed-<16>`` | an image, a failure, by the first 16 hex digits of its recipe |
| ``base-<16>``, ``userspace-<nvidia>-<16>`` | layers that images share, by the same of theirs |
| ``i-<16>`` | an index of several architectures' images, by the digest of their recipes |
| ``index`` | the index of all outcomes |
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final, Literal

from .errors import UpstreamDataError

INDEX: Final = "index"
LABELS: Final = "io.coreos-nvidia."
"""Prefix of this project's labels."""
RECIPE_LABEL: Final = f"{LABELS}recipe"
REASON_LABEL: Final = f"{LABELS}reason"
OUTCOME_LABEL: Final = f"{LABELS}outcome"
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_OF_RECIPE: Final = re.compile(r"(r|failed|base|userspace-[A-Za-z0-9_.]+|i)-[0-9a-f]{16}")
TagKind = Literal["r", "failed", "base", "userspace", "i", ""]


def tag_text(text: str) -> str:
    """Return ``text`` as a tag may hold it: ``+`` and ``~`` become ``_`` (OCI distribution-spec, tag rule)."""
    return text.replace("+", "_").replace("~", "_")


def check_tag(tag: str) -> str:
    """Return ``tag`` where a registry accepts it. Raises UpstreamDataError otherwise."""
    if not _TAG.fullmatch(tag):
        raise UpstreamDataError(f"'{tag}' is not a valid image tag", hint="a tag has 1 to 128 of A-Z a-z 0-9 _ . -")
    return tag


def plain(kernel: str, driver: str) -> str:
    """Name a kernel's image; ``driver`` is a version or a branch."""
    return f"{tag_text(kernel)}-{driver}"


def qualified(driver: str, kernel: str, os: str) -> str:
    """Name the same as the GPU Operator does; ``os``: ID and VERSION_ID of os-release, ``debian12``."""
    return f"{driver}-{tag_text(kernel)}-{os}"


def short(recipe: str) -> str:
    """Return the part of a recipe that stands in tags, with or without ``sha256:`` before it."""
    return recipe.removeprefix("sha256:")[:16]


def of_image(recipe: str) -> str:
    """Name the finished image of a recipe, for ever."""
    return f"r-{short(recipe)}"


def of_failure(recipe: str) -> str:
    """Name the failure of a recipe."""
    return f"failed-{short(recipe)}"


def of_base(recipe: str) -> str:
    """Name the runtime base of a recipe."""
    return f"base-{short(recipe)}"


def of_userspace(driver: str, recipe: str) -> str:
    """Name the userspace of a driver."""
    return f"userspace-{tag_text(driver)}-{short(recipe)}"


def of_joint(recipes: Iterable[str]) -> str:
    """Name the index of the images with these recipes, in whatever order they come."""
    return f"i-{hashlib.sha256(' '.join(sorted(recipes)).encode()).hexdigest()[:16]}"


def kind_of(tag: str) -> TagKind:
    """Tell what a tag that holds a recipe names; "" for every other tag."""
    found = _OF_RECIPE.fullmatch(tag)
    kind: TagKind = found[1].partition("-")[0] if found else ""  # type: ignore[assignment]
    return kind


def is_outcome(tag: str) -> bool:
    """Whether the tag names an image or a failure."""
    return tag.startswith(("r-", "failed-"))


def is_failure(tag: str) -> bool:
    """Whether the tag names a failure."""
    return tag.startswith("failed-")


def label(name: str) -> str:
    """Name a label of this project's."""
    return f"{LABELS}{name}"
