"""Folders and arrays of language models that other people's code answered; tests that need them skip without."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.reference import FOLDER

LANGUAGE = FOLDER / "language_models"
NAMES = ("llama_untied_padded_sharded", "gpt2_tied", "gemma2_softcap", "granite_scaled", "phi_bias", "gptj_bias")
needs_models = pytest.mark.skipif(not LANGUAGE.is_dir(), reason=f"no reference data in {LANGUAGE}")


def arrays(file: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The arrays of a file by name, integers as int64, and its ``meta``."""
    with np.load(LANGUAGE / file) as held:
        found = {name: torch.from_numpy(held[name]) for name in held.files if name != "meta"}
        meta = json.loads(str(held["meta"]))
    return {name: value if value.is_floating_point() else value.long() for name, value in found.items()}, meta
