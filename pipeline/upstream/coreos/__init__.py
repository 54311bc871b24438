"""Fedora CoreOS, Flatcar and CoreOS Container Linux."""
