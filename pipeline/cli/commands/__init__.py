"""doit commands of our own, one module each; ``run`` is doit's, with our exit statuses. ``plain`` is what they share.

They are plugins (``[tool.doit.plugins.command]``), so that their stdout is the document alone, they take options, and
``update`` works with a broken lock. Exit status: 3 wrong use or a bad file; else 2 the system could not do its work;
else 1 a selected pair failed; else 0.
"""
