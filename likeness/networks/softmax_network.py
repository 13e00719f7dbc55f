"""The model family of all the papers: p(y | x) = softmax_y f(x) . g(y)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from likeness.checks import require_positive, require_shape
from likeness.numerics import unit_length
from likeness.seeding import mix, seeded


class SoftmaxNetwork(nn.Module):
    """An embedding f and an unembedding g with the scaling of the stored inputs and, optionally, fixed lengths.

    ``embedding`` maps [N, *input_shape] to [N, M]; ``unembedding`` takes nothing and answers [K, M], and may carry a
    ``bias`` [K]: then f gains a constant coordinate 1 and g the bias. Both may answer for P siblings with a leading
    dimension P, and so does everything here. ``input_shift`` and ``input_scale`` hold one number, or one for each
    channel (images) or coordinate (points): f sees (x - shift) / scale. ``embedding_norm`` and ``unembedding_norm``
    fix ||f(x)|| and ||g(y)||, the constant coordinate aside.

    Raises ValueError where the sizes of f and g, K, M or the input do not fit, naming the received value.
    """

    input_shift: Tensor
    input_scale: Tensor

    def __init__(
        self,
        embedding: nn.Module,
        unembedding: nn.Module,
        input_shape: Sequence[int],
        num_classes: int,
        dim: int,
        embedding_norm: float | None = None,
        unembedding_norm: float | None = None,
        input_shift: Sequence[float] = (0.0,),
        input_scale: Sequence[float] = (1.0,),
    ) -> None:
        super().__init__()
        for name, norm in (("embedding_norm", embedding_norm), ("unembedding_norm", unembedding_norm)):
            if norm is not None and not norm > 0:
                raise ValueError(f"{name} must be positive, got {norm}")
        self.embedding = embedding
        self.unembedding = unembedding
        self.input_shape = tuple(input_shape)
        self.embedding_norm = embedding_norm
        self.unembedding_norm = unembedding_norm
        self.register_buffer("input_shift", _per_channel("input_shift", input_shift, input_shape))
        self.register_buffer("input_scale", _per_channel("input_scale", input_scale, input_shape))
        if not (self.input_scale != 0).all():
            raise ValueError(f"input_scale must not hold zeros, got {list(input_scale)}")
        self._check_sizes(num_classes, dim)

    def embed(self, x: Tensor) -> Tensor:
        """Representations f(x), [N, M], of inputs [N, *input_shape] as they are stored (uint8 images, float points)."""
        own = self.num_members is not None and x.shape[:1] == (self.num_members,)  # a batch for each sibling
        if x.shape[1:] != self.input_shape and not (own and x.shape[2:] == self.input_shape):
            raise ValueError(f"x has shape {list(x.shape)}, the model takes [N, {str([*self.input_shape])[1:]}")
        f = self.embedding((x.to(self.input_shift.dtype) - self.input_shift) / self.input_scale)
        if self.embedding_norm is not None:
            f = self.embedding_norm * unit_length(f)
        if self._bias() is not None:
            f = torch.cat([f, torch.ones_like(f[..., :1])], dim=-1)
        return f  # type: ignore[no-any-return]

    def unembeddings(self) -> Tensor:
        """The label vectors g(y), [K, M]."""
        g = self.unembedding()
        if self.unembedding_norm is not None:
            g = self.unembedding_norm * unit_length(g)
        bias = self._bias()
        return g if bias is None else torch.cat([g, bias.unsqueeze(-1)], dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits f(x) . g(y), [N, K]: one evaluation of f, one of g and a matrix product."""
        return self.embed(x) @ self.unembeddings().mT

    def nll(self, x: Tensor, y: Tensor) -> Tensor:
        """-log p(y | x) in nats for each sample, [N], or [P, N] for siblings; y is [N] or, as x, a batch for each."""
        f, g = self.embed(x), self.unembeddings()
        if self.num_members is None:  # a batch of one, so that siblings round as it does
            return self._nll(f.unsqueeze(0), g.unsqueeze(0), y).squeeze(0)
        return self._nll(f, g, y)

    def _nll(self, f: Tensor, g: Tensor, y: Tensor) -> Tensor:
        # Classes before samples: the softmax then runs along contiguous memory, much faster where classes are few.
        return F.cross_entropy(torch.bmm(g, f.mT), y.expand(len(f), -1), reduction="none")

    def _bias(self) -> Tensor | None:
        return getattr(self.unembedding, "bias", None)

    @torch.no_grad()
    def _check_sizes(self, num_classes: int, dim: int) -> None:
        modes = {module: module.training for module in self.modules()}
        f, g = self.eval().embedding(torch.zeros(1, *self.input_shape)), self.unembedding()
        for module, training in modes.items():
            module.training = training
        self.num_members = f.shape[0] if f.dim() == 3 else None
        if f.shape[-2:] != (1, dim):
            raise ValueError(f"embedding {_name(self.embedding)} answers shape {list(f.shape)}, not [1, dim={dim}]")
        if g.shape[-2:] != (num_classes, dim):
            wanted = f"[num_classes={num_classes}, dim={dim}]"
            raise ValueError(f"unembedding {_name(self.unembedding)} answers shape {list(g.shape)}, not {wanted}")


EmbeddingFactory = Callable[[Sequence[int], int], nn.Module]
UnembeddingFactory = Callable[[int, int], nn.Module]


def build_networks(
    embedding: EmbeddingFactory,
    unembedding: UnembeddingFactory,
    input_shape: Sequence[int],
    num_classes: int,
    dim: int,
    seed: int,
) -> tuple[nn.Module, nn.Module]:
    """f and g at their first weights, a function of ``seed`` alone; the global generator is left as it was."""
    require_shape("input_shape", input_shape)
    require_positive(num_classes=num_classes, dim=dim)
    with seeded(mix(seed)):
        return embedding(input_shape, dim), unembedding(num_classes, dim)


def _per_channel(name: str, values: Sequence[float], input_shape: Sequence[int]) -> Tensor:
    if len(values) not in (1, input_shape[0]):
        raise ValueError(f"{name} must hold 1 or {input_shape[0]} numbers for inputs {list(input_shape)}, got {values}")
    return torch.tensor(values, dtype=torch.get_default_dtype()).view(-1, *[1] * (len(input_shape) - 1))


def _name(module: nn.Module) -> str:
    return type(module).__name__
