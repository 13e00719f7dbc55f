"""Hubness beside chance, and its reductions: see ``docs/subjects/hubness.md``.

The names, and where each is defined, stand in ``__init__.pyi``. A module is imported when a name of it is asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
