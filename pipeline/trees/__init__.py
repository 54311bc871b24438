"""What vendors' archives become in an image: the tars that a Dockerfile adds."""
