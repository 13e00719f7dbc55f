"""A file of embeddings with labels, small enough for brute force."""

from pathlib import Path

import numpy as np


def points_file(path: Path, dtype: type = np.float64) -> Path:
    """Three overlapping classes of 70, 80 and 90 points about centres away from the origin."""
    random = np.random.default_rng(0)
    labels = np.repeat([3, 5, 7], (70, 80, 90))
    centres = 1.5 + random.standard_normal((3, 12))
    x = centres[np.repeat([0, 1, 2], (70, 80, 90))] + 1.6 * random.standard_normal((240, 12))
    np.savez(path, embeddings=x.astype(dtype), labels=labels)
    return path
