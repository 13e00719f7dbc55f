"""The benches behind ``python -m scripts.bench``: one file each, a function that returns a ``Report``."""
