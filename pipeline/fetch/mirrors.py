"""``DRIVER_MIRRORS``: where a closed network keeps its copies.

The file is TOML. ``[mirrors]`` maps URL prefixes to URL prefixes, ``[registries]`` maps image name prefixes to others.
The longest prefix that matches wins, and a prefix ends where a part of a URL or name ends: ``https://a.example`` is no
prefix of ``https://a.example.org/``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from ..core.errors import BadFileError

UrlPrefix = Annotated[str, Meta(pattern=r"^https?://[!-~]+\Z", max_length=500)]
_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9._-]+)*/?\Z"
NamePrefix = Annotated[str, Meta(pattern=_NAME, max_length=255)]
_HINT: Final = "DRIVER_MIRRORS (or 'mirrors' in versions.toml) names a TOML file with [mirrors] and [registries]"


@dataclass(frozen=True)
class Mirrors:
    """URL prefix to URL prefix, and image name prefix to image name prefix."""

    urls: Mapping[str, str] = field(default_factory=dict)
    registries: Mapping[str, str] = field(default_factory=dict)

    def rewrite(self, url: str) -> str:
        """``url`` as the closed network serves it; ``url`` itself where no prefix matches."""
        return _replaced(url, self.urls, re.compile(r"[/?]"))

    def registry(self, name: str) -> str:
        """The image ``name`` under the registry that stands in for its own; ``name`` itself where none does."""
        return _replaced(name, self.registries, re.compile(r"[/:@]"))


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    mirrors: dict[UrlPrefix, UrlPrefix] = {}
    registries: dict[NamePrefix, NamePrefix] = {}


def _replaced(text: str, table: Mapping[str, str], boundary: re.Pattern[str]) -> str:
    for prefix in sorted(table, key=len, reverse=True):
        rest = text[len(prefix) :]
        if not text.startswith(prefix) or (rest and not prefix.endswith("/") and not boundary.match(rest)):
            continue
        if rest.startswith(":") and "/" not in prefix:  # the port of another registry, not a tag
            continue
        return table[prefix] + rest
    return text


def load(path: str) -> Mirrors:
    """The mirrors in the file ``path``; none for an empty ``path``.

    Raises BadFileError for a file that cannot be read, an unknown table, a URL that is not http or https, and a pair of
    which only one side ends in ``/`` (what is joined would be another name).
    """
    if not path:
        return Mirrors()
    try:
        file = msgspec.convert(tomllib.loads(Path(path).read_text(encoding="utf-8")), _File)
    except OSError as error:
        raise BadFileError(f"{path}: {error.strerror}", hint=_HINT) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError, ValueError) as error:
        raise BadFileError(f"{path}: {error}", hint=_HINT) from error
    for name, table in (("mirrors", file.mirrors), ("registries", file.registries)):
        for source, target in table.items():
            if source.endswith("/") != target.endswith("/"):
                raise BadFileError(
                    f"{path}: {source} and {target} do not end alike - at `$.{name}`", hint="end both in / or neither"
                )
    return Mirrors(urls=file.mirrors, registries=file.registries)
