"""Likeness: what likelihoods do and do not say about representations (pure PyTorch)."""

__version__ = "0.1.0"
