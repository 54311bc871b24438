"""Pairs, their recipes and names, rendered Dockerfiles, jobs of a CI matrix. Asks nobody anything."""
