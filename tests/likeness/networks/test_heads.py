"""Label vectors that are free parameters."""

import pytest
import torch
from torch import nn

from likeness.networks import LabelTable, LinearHead


def test_a_table_is_its_rows() -> None:
    table = LabelTable(5, 3)
    assert table().shape == (5, 3)
    assert [name for name, _ in table.named_parameters()] == ["weight"]
    assert table() is table.weight


@pytest.mark.parametrize("bias", [True, False])
def test_a_head_starts_as_a_linear_layer(bias: bool) -> None:
    torch.manual_seed(0)
    head = LinearHead(5, 3, bias=bias)
    torch.manual_seed(0)
    linear = nn.Linear(3, 5, bias=bias)
    assert torch.equal(head(), linear.weight)
    assert (head.bias is not None) == bias
    head.load_state_dict(linear.state_dict())


@pytest.mark.parametrize("head", [LabelTable, LinearHead])
def test_sizes_that_do_not_fit_are_named(head: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        head(0, 3)
    with pytest.raises(ValueError, match="dim must be at least 1, got -2"):
        head(3, -2)
