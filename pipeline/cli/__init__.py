"""doit's edge: the program, its tasks, its commands, and the parts of one run."""
