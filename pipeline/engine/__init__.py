"""The client of container engines."""
