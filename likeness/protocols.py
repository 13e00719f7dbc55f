"""The small interfaces through which callbacks and commands reach models."""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from likeness.batch import Batch, Positions
from likeness.diffusion.model import DiffusionModel


@runtime_checkable
class Embedder(Protocol):
    """Anything that turns inputs into vectors."""

    def embed(self, x: Tensor) -> Tensor:
        """Representations [N, M] of the inputs x [N, ...], given as the datamodule stores them."""
        ...


@runtime_checkable
class SoftmaxModel(Embedder, Protocol):
    """p(y | x) = softmax_y f(x) . g(y): log-probabilities are ``log_softmax(f @ g.T)``.

    A head with a bias appends a constant coordinate 1 to f and the bias to g. A model that holds P
    siblings answers with a leading dimension: f is [P, N, M] and g is [P, K, M].
    """

    def unembeddings(self) -> Tensor:
        """The label vectors g [K, M]."""
        ...


@runtime_checkable
class TokenModel(SoftmaxModel, Protocol):
    """A softmax model of contexts [B, T]: ``embed`` answers a row for each position, [B T, M], in their order."""

    def measured(self, batch: Batch) -> Positions:
        """The positions of a held-out batch that measures look at, the same ones each time."""
        ...


@runtime_checkable
class Siblings(Protocol):
    """A module that holds several softmax models, each of which can stand alone."""

    num_members: int

    def member(self, index: int) -> nn.Module:
        """The model of one sibling, a :class:`SoftmaxModel`."""
        ...


@runtime_checkable
class Diffuser(Protocol):
    """A module that trains a variational diffusion model."""

    diffusion: DiffusionModel
    seed: int  # of the noise with which it is evaluated
    class_conditional: bool  # whether the networks are given the labels
