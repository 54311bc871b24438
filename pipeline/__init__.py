"""Prebuilt NVIDIA driver images, one for each (kernel, driver).

Importing this package, or any module of it, opens no socket and talks to no engine.
"""
