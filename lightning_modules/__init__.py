"""Models as they are trained: classifiers, siblings, diffusion models, sentence encoders.

Configurations and checkpoints name classes as they are exported here. The names, and where each is defined, stand in
``__init__.pyi``; a module is imported when a name of it is asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
