"""What every test can count on: no network, the same random examples each time, one thread a worker."""

import gc
import ipaddress
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import hypothesis
import pytest
import torch

from likeness.figures.style import STYLE

ROOT = Path(__file__).resolve().parents[1]

hypothesis.settings.register_profile("likeness", derandomize=True, deadline=None)
hypothesis.settings.load_profile("likeness")

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # workers share the cores


def pytest_collection_finish() -> None:
    """What was imported until now is left out of every later garbage collection: an eighth of the commands' time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Connections that leave this machine fail at once, with the address in the message."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _only_local(getattr(socket.socket, name)))
        yield


@pytest.fixture(scope="session")
def look() -> Mapping[str, Any]:
    """The style of figures as readers have it, which tests of figures take; all others write fewer pixels."""
    return MappingProxyType(dict(STYLE))


@pytest.fixture(scope="session", autouse=True)
def _quick_figures(look: Mapping[str, Any]) -> Iterator[None]:
    """Most of the time of tests that draw went into the pixels and fonts of figures that only have to be there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STYLE, "savefig.dpi", look["savefig.dpi"] / 6)
        patch.setitem(STYLE, "pdf.fonttype", 3)
        yield


@pytest.fixture(autouse=True)
def _no_process_group_left() -> Iterator[None]:
    """Lightning leaves its process group behind; processes that a later test forks would wait in it forever."""
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _only_local(connect: Any) -> Any:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
            raise OSError(f"tests use no network, but one connects to {address}")
        return connect(self, address)

    return guarded


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
