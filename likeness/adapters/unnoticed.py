"""Looking at a model without leaving a trace: modes, gradients and random numbers are afterwards what they were."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def unnoticed(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Evaluation mode without gradients inside; afterwards, also after an error, everything is as it was.

    Each layer is again in the mode that it was in, and Python's, NumPy's and torch's generators, those of all CUDA
    devices included, stand where they stood. An autocast context around the block stays in force.
    """
    layers = {layer: layer.training for module in modules for layer in module.modules()}
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (others draw from it)
    with torch.random.fork_rng(), torch.no_grad():
        for layer in layers:
            layer.training = False
        try:
            yield
        finally:
            for layer, training in layers.items():
                layer.training = training
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
