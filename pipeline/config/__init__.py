"""Strict records of versions.toml, versions.lock and compat.toml."""
