"""Kernel images and kernel modules."""
