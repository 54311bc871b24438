"""``doit update``: what upstreams offer becomes what the lock pins."""
