"""Sources of releases, kernels and drivers: each module holds its real URLs and pure parsers (bytes in, records out)."""
