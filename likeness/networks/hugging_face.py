"""Hugging Face's libraries, which come with the extra ``text``, without their advice and progress bars."""

import importlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

EXTRA = 'pip install -e ".[text]"'


def text_library(name: str) -> Any:
    """The module ``name`` of one of the libraries. Raises ImportError that names the extra where it is missing."""
    # Threads of tokenizers do not survive the fork of a loader's worker, which is reported each time.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Of a model without safetensors the hub would be asked, in a thread, to make some.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "true")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != name.partition(".")[0]:
            raise
        raise ImportError(f"text encoders need {name.partition('.')[0]}: {EXTRA}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Only errors are logged inside, and no bar is drawn; settings are the user's again afterwards."""
    libraries = [text_library(name) for name in ("transformers.utils.logging", "huggingface_hub.utils.logging")]
    levels = [library.get_verbosity() for library in libraries]
    transformers = libraries[0]
    bars = transformers.is_progress_bar_enabled()
    for library in libraries:
        library.set_verbosity(logging.ERROR)
    transformers.disable_progress_bar()
    try:
        yield
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.set_verbosity(level)
        if bars:
            transformers.enable_progress_bar()
