"""Matrix products of float32 that keep float32's precision, whatever the training around them asked for."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision(device: torch.device | str) -> Iterator[None]:
    """Inside the block neither autocast nor TF32 nor bfloat16 products stand in for float32 on the device.

    Trainings set `torch.set_float32_matmul_precision` for the whole process, and callbacks may run under autocast:
    near neighbours would be told apart by the first three digits of their distances.
    """
    with torch.autocast(torch.device(device).type, enabled=False), _plain_products():
        yield


@contextmanager
def _plain_products() -> Iterator[None]:
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch 2.8
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    # The getter of the older form raises where the newer one was used.
    backends = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    asked = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, asked, strict=True):
            backend.fp32_precision = precision
