"""A training step of VDM and of DiffEnc, forward and backward, beside what its convolutions alone cost; the coder."""

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules import DiffEnc, VariationalDiffusion
from likeness.diffusion import Coder, LearnedVolatility, MultivariatePolynomial, SignalDensity
from likeness.diffusion.elbo import bits_per_dim
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import training_noise
from likeness.networks import EncoderUNet, ScoreUNet
from scripts.bench.timing import Contestant, interleaved

if TYPE_CHECKING:
    from rich.table import Table

# Seconds that others measured together on two cores, 3x32x32, score width 64 and depth 4, batch 8, float32: the bare
# convolutions and attention of the score network; a PyTorch VDM (addtt); the authors' JAX DiffEnc.
BARE, OTHER_VDM, AUTHORS_DIFFENC = 0.29 + 0.06, 0.61, 2.40
BARE_NAME, VDM, EXACT, LEAN = "bare convolutions and attention", "VDM-v", "DiffEnc, exact", "DiffEnc, lean"
FREE, PLUGGED = "VDM-v, volatility and density of times", "DiffEnc, plug-in drift"
MANY = "VDM-v, a gamma of each dimension"
PASSES, CODED = "the coder's network passes", "the coder"
MEBI = 2**20
VARIANTS = 64  # of compiled code: six models, with and without gradients
NEAR = 1e-3  # bits per dimension that a loss in lower precision, or compiled, may differ by


@dataclass
class DiffusionReport:
    """Seconds of each contestant, memory, and the ratios that are asked for (where the setting is theirs)."""

    title: str
    times: Mapping[str, Contestant]
    memory: Mapping[str, float]  # MiB kept for the backward pass, or the peak on a GPU
    asked: Mapping[tuple[str, str], float]  # at most so many times the other
    asked_memory: Mapping[tuple[str, str], float]
    bits: Mapping[str, float]  # per dimension, the loss of one batch
    faster: Mapping[str, str]  # from the name of a faster form to that of the plain one

    def table(self) -> "Table":
        """A row for each contestant."""
        from rich.table import Table

        heads = ("", "median [ms]", "fastest [ms]", "times bare", "times VDM-v", "MiB", "bits/dim")
        table = Table(*heads, title=self.title)
        for name, contestant in self.times.items():
            ratios = [f"{self._ratio(name, base):.2f}" if base in self.times else "" for base in (BARE_NAME, VDM)]
            times = (f"{1e3 * contestant.median:.1f}", f"{1e3 * min(contestant.seconds):.1f}")
            memory = f"{self.memory[name]:.0f}" if name in self.memory else ""
            table.add_row(name, *times, *ratios, memory, f"{self.bits[name]:.4f}" if name in self.bits else "")
        return table

    def verdicts(self) -> list[str]:
        """A line for each ratio that is asked for."""
        lines = []
        for (name, base), limit in self.asked.items():
            ratio = self._ratio(name, base)
            held = "yes" if ratio <= limit else "NO"
            lines.append(f"{name}: at most {limit:.2f} times {base} is asked for: {held} ({ratio:.2f})")
        for (name, base), limit in self.asked_memory.items():
            ratio = self.memory[name] / self.memory[base]
            held = "yes" if ratio <= limit else "NO"
            lines.append(f"{name}: at most {limit:.2f} times the memory of {base} is asked for: {held} ({ratio:.2f})")
        for name, plain in self.faster.items():
            off = abs(self.bits[name] - self.bits[plain])
            held = "yes" if off <= NEAR else "NO"
            lines.append(f"{name}: the loss within {NEAR:g} bits per dimension is asked for: {held} ({off:.1e})")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Plain values, seconds unrounded."""
        seconds = {name: contestant.seconds for name, contestant in self.times.items()}
        facts = {"seconds": seconds, "memory_mib": dict(self.memory), "bits_per_dim": dict(self.bits)}
        return {"title": self.title, **facts, "verdicts": self.verdicts()}

    def _ratio(self, name: str, base: str) -> float:
        return self.times[name].median / self.times[base].median


def diffusion(
    width: int = 64,
    depth: int = 4,
    encoder_width: int = 64,
    levels: int = 2,
    size: int = 32,
    batch_size: int = 8,
    repeats: int = 5,
    device: Literal["cpu", "cuda"] = "cpu",
    bfloat16: bool = False,
    compiled: bool = False,
) -> DiffusionReport:
    """Seconds for a step of VDM and DiffEnc, forward and backward, and for coding a batch in ten steps.

    Layers that start at zero are given small weights, so that losses depend on the whole of the networks.

    Args:
        width: Channels of the score network.
        depth: Blocks on each side of the score network.
        encoder_width: Channels of the encoder.
        levels: Resolutions of the encoder.
        size: Height and width of the RGB images.
        batch_size: Images in a step.
        repeats: Rounds that are timed.
        device: Where it runs.
        bfloat16: Also run under autocast to bfloat16.
        compiled: Also run compiled (with bfloat16, both).
    """
    shape = (3, size, size)
    network = functools.partial(ScoreUNet, width=width, depth=depth)
    told = functools.partial(network, gamma_map=True)
    encoder = functools.partial(EncoderUNet, width=encoder_width, depth=levels)
    models: dict[str, tuple[VariationalDiffusion, bool]] = {
        VDM: (VariationalDiffusion(shape, 256, network), False),
        FREE: (VariationalDiffusion(shape, 256, network, volatility=LearnedVolatility, times=SignalDensity), False),
        MANY: (VariationalDiffusion(shape, 256, told, schedule=MultivariatePolynomial), False),
        EXACT: (DiffEnc(shape, 256, network, encoder), False),
        LEAN: (DiffEnc(shape, 256, network, encoder), True),
        PLUGGED: (DiffEnc(shape, 256, network, encoder, plug_in=True), False),
    }
    images = torch.randint(256, (batch_size, *shape), dtype=torch.uint8, device=device)
    steps: dict[str, Callable[[], None]] = {}
    bits: dict[str, float] = {}
    plain: dict[str, str] = {}
    # Each model as it is and, where asked for, in the faster form.
    for name, (model, lean) in models.items():
        _wake(model.to(device))
        steps[name], bits[name] = functools.partial(_step, model, images, lean), _bits(model, images, lean)
        if bfloat16 or compiled:
            plain[faster := f"{name}, {_faster_name(bfloat16, compiled)}"] = name
            steps[faster] = functools.partial(_step, model, images, lean, bfloat16, compiled)
            bits[faster] = _bits(model, images, lean, bfloat16, compiled)
    memory = {name: _memory(step, device) for name, step in steps.items()}
    network_alone = _bare(models[VDM][0].diffusion.network, batch_size, shape, device)
    work: dict[str, Callable[[], object]] = {BARE_NAME: network_alone, **steps}
    work |= _coding(models[VDM][0].diffusion, images)
    times = dict(zip(work, interleaved(work, repeats, device), strict=True))
    # What is asked for was measured by others in one setting, their ratios to the bare operations with it.
    theirs = (width, depth, encoder_width, levels, size, batch_size, device) == (64, 4, 64, 2, 32, 8, "cpu")
    asked = {(EXACT, VDM): 2.6, (LEAN, VDM): 2.0} if device == "cpu" else {}
    asked |= {(FREE, VDM): 1.02, (MANY, VDM): 1.1, (PLUGGED, EXACT): 1.45, (CODED, PASSES): 1.3}
    if theirs:
        asked |= {(VDM, BARE_NAME): 0.9 * OTHER_VDM / BARE, (LEAN, BARE_NAME): 0.5 * AUTHORS_DIFFENC / BARE}
    title = (
        f"3x{size}x{size}, score {width} x {depth}, encoder {encoder_width} x {levels}, batch {batch_size}, {device}"
    )
    return DiffusionReport(title, times, memory, asked, {(MANY, VDM): 1.1}, bits, plain)


def _step(
    module: VariationalDiffusion, images: Tensor, lean: bool, bfloat16: bool = False, compiled: bool = False
) -> None:
    module.zero_grad()
    _loss(module, images, lean, bfloat16, compiled).backward()


def _loss(module: VariationalDiffusion, images: Tensor, lean: bool, bfloat16: bool, compiled: bool) -> Tensor:
    """The mean of a batch in nats, of the same noise each time."""
    noise = training_noise(torch.empty(images.shape, device=images.device), 0, 0, 0, 1).at_times_of(module.times)
    terms = _compiled(module.diffusion) if compiled else module.diffusion.elbo_terms
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
        loss: Tensor = terms(images, **noise._asdict(), lean=lean).total.mean()
    return loss


@torch.no_grad()
def _bits(
    module: VariationalDiffusion, images: Tensor, lean: bool, bfloat16: bool = False, compiled: bool = False
) -> float:
    """The loss in bits per dimension, without dropout."""
    module.eval()
    bits = bits_per_dim(_loss(module, images, lean, bfloat16, compiled), images[0].numel())
    module.train()
    return float(bits)


@torch.no_grad()
def _wake(module: nn.Module) -> None:
    """Small weights in the layers that start at zero."""
    source = torch.Generator().manual_seed(0)
    for weight in module.parameters():
        if weight.dim() > 1 and not weight.any():
            weight.copy_(0.01 * torch.randn(weight.shape, generator=source))


def _coding(model: DiffusionModel, images: Tensor) -> dict[str, Callable[[], None]]:
    """Writing a batch in ten steps, and the passes of the network that it takes."""
    coded = copy.deepcopy(model).eval()
    coded.num_steps = 10
    coder, z = Coder(coded), coded.scale(images)
    gammas = [gamma.to(z).expand(len(z)) for gamma in coder.gammas[:-1]]

    @torch.no_grad()
    def passes() -> None:
        for gamma in gammas:
            coded.predict(z, gamma)

    return {PASSES: passes, CODED: lambda: coder.encode(images) and None}


@functools.cache
def _compiled(model: nn.Module) -> Callable[..., Any]:
    # The models share their code, of which dynamo keeps 8 variants unless told: beyond, parts would run uncompiled.
    torch._dynamo.config.recompile_limit = VARIANTS
    return torch.compile(model.elbo_terms, fullgraph=True)  # type: ignore[arg-type]


def _faster_name(bfloat16: bool, compiled: bool) -> str:
    return " + ".join(word for word, wanted in (("bfloat16", bfloat16), ("compile", compiled)) if wanted)


def _bare(network: nn.Module, batch_size: int, shape: tuple[int, ...], device: str) -> Callable[[], None]:
    """Forward and backward of the network's convolutions and attention, each on inputs of its own shape."""
    inputs: list[tuple[nn.Conv2d, Tensor]] = []
    hooks = [
        module.register_forward_pre_hook(lambda layer, args: inputs.append((layer, torch.randn_like(args[0]))))
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        network(torch.randn(batch_size, *shape, device=device), torch.zeros(batch_size, device=device))
    for hook in hooks:
        hook.remove()
    places, channels = shape[1] * shape[2], inputs[1][1].shape[1]
    queries = torch.randn(3, batch_size, 1, places, channels, device=device, requires_grad=True)

    def run() -> None:
        for layer, x in inputs:
            x = x.requires_grad_()
            x.grad = layer.weight.grad = None
            F.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding).sum().backward()
        queries.grad = None
        F.scaled_dot_product_attention(*queries).sum().backward()

    return run


def _memory(step: Callable[[], object], device: str) -> float:
    """MiB: the peak of a step on a GPU; elsewhere what autograd keeps for the backward pass."""
    if device == "cuda":
        step()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() / MEBI
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(kept.values()) / MEBI
