"""Pure parsers of what vendors publish (bytes in, records out), one folder a vendor, with the vendors' real URLs."""
