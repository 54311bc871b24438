"""Prebuilt NVIDIA driver images, one for each (kernel, driver).

Importing this package, or any module of it, opens no socket and talks to no engine.
"""

VERSION = "0.1.0"
"""As in pyproject.toml and CHANGELOG.md; held by a test."""
