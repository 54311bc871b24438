"""Benchmarks. Each prints ratios or counts that hold on any machine beside the seconds of this one.

docs/performance.md has their figures. Run one as ``.venv/bin/python -m bench.noop`` in the checkout, with nothing else
running.
"""
