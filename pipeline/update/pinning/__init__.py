"""From what an upstream offers to what the lock pins: downloaded once, checked, measured."""
