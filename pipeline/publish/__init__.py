"""What the registry says is done, the index, its signature, and what may be deleted."""
