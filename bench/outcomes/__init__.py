"""The table of outcomes: which NVIDIA driver compiles and loads on which of Debian's kernels, measured.

    python -m bench.outcomes pin      what there is: docs/outcomes/*.toml and Debian's signed indices give versions.lock
    python -m bench.outcomes run      measure what has no result yet; end it whenever you like, and go on by the same words
    python -m bench.outcomes take     take over what 'doit' has built and proved, from the registry's index
    python -m bench.outcomes write    docs/outcomes.md and docs/outcomes.html out of the results

``pins`` makes the lock, ``cells`` the order, ``measure`` a result with the pipeline's own compiling and proof, ``results``
keeps them, ``table`` and the pipeline's page show them.
"""
