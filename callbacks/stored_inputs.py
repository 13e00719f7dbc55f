"""A bounded, reproducible choice of inputs that merges exactly over batches and ranks."""

import torch
from torch import Tensor

_FREE = -1  # id of a row that holds no input yet


def empty_store(size: int, features: int) -> Tensor:
    """A store for ``size`` inputs of ``features`` numbers: rows [id, features], float64."""
    store = torch.zeros(size, 1 + features, dtype=torch.float64)
    store[:, 0] = _FREE
    return store


def merge_stores(stores: Tensor) -> Tensor:
    """One store [R, 1 + D] from S stacked ones [S, R, 1 + D]: the inputs of highest priority."""
    return keep(stores.flatten(0, 1), stores.shape[1])


def keep(rows: Tensor, size: int) -> Tensor:
    """The ``size`` rows whose ids have the smallest hashes: a random sample that no order of the data can change."""
    ids = rows[:, 0].long()
    priority = torch.where(ids == _FREE, torch.iinfo(torch.int64).max, _hash(ids))
    return rows[priority.argsort(stable=True)[:size]]


def filled(store: Tensor) -> tuple[Tensor, Tensor]:
    """Ids [n] and features [n, D] of the inputs in a store, by id."""
    rows = store[store[:, 0] != _FREE]
    rows = rows[rows[:, 0].argsort()]
    return rows[:, 0].long(), rows[:, 1:]


def _hash(ids: Tensor) -> Tensor:
    """SplitMix64's finaliser in wrapping arithmetic; non-negative."""
    value = ids * -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number
    value = (value ^ _shift(value, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    value = (value ^ _shift(value, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return _shift(value ^ _shift(value, 31), 1)


def _shift(value: Tensor, bits: int) -> Tensor:
    """A logical shift to the right of signed integers."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)
