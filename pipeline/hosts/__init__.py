"""What ``doit host`` writes for hosts."""
