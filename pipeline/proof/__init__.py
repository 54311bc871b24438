"""What an image passes before it is pushed: checks of its files, and a boot of the real kernel."""
