"""Records of what became of each pair, and what is shown of them: index, table, page."""
