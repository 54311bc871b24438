"""One pair from pinned files to a pushed image."""
