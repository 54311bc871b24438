"""Debian's archive: signed indices, packages, and which packages a set of packages needs."""
