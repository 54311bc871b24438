"""Files over HTTP: the client, its cache, mirrors, and the store of pinned files."""
