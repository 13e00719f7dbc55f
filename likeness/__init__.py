"""Likeness: what likelihoods do and do not say about representations (pure PyTorch).

What a user of the library imports stands here, ``from likeness import compare_softmax_models``; the names, and where
each is defined, in ``__init__.pyi``. A module is imported when a name of it is asked for.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
