"""NVIDIA's feeds of drivers, their files, and which GPU a driver serves."""
