"""The bound on y, and checkpoints that name options which there are no more."""

from functools import partial

import pytest
import torch

from lightning_modules.hyperparameters import RETIRED, rebuild
from likeness.networks.dual import Dual
from likeness.networks.encoder_networks import EncoderOutput
from tests.lightning_modules.tiny_diffusion import ENCODER, diffenc


@pytest.mark.parametrize("bounded", [True, False])
def test_value_and_derivative(bounded: bool) -> None:
    h, dh = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y, dy = EncoderOutput(tanh=bounded)(Dual(h, dh))
    torch.testing.assert_close(y, h.tanh() if bounded else h)
    torch.testing.assert_close(dy, dh / h.cosh().square() if bounded else dh)


def test_older_checkpoints_say_that_options_were_off() -> None:
    module = diffenc(encoder=partial(ENCODER, output=EncoderOutput(tanh=False)))
    saved = dict(module.hparams)
    saved["encoder"]["init_args"]["output"] |= RETIRED
    again = rebuild(type(module), saved)
    assert again.diffusion.encoder.network.output == EncoderOutput(tanh=False)
    saved["encoder"]["init_args"]["output"]["factor"] = 0.5
    with pytest.raises(TypeError, match="factor"):
        rebuild(type(module), saved)
