"""A variational diffusion model: the pieces bound into one density model of data with grey levels."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, get_args

import torch
from torch import Tensor, nn
from typing_extensions import override

from likeness.checks import require_positive
from likeness.diffusion.elbo import AnyTerms, ElboTermsWithContext, Prediction
from likeness.diffusion.encoders import DepthEncoder
from likeness.diffusion.hierarchy import Drawn, Hierarchy, require_context_noise
from likeness.diffusion.process import neighbours_within_reach
from likeness.diffusion.schedules import NoiseSchedule
from likeness.diffusion.variance_ratio import VarianceRatio
from likeness.diffusion.volatility import Volatility


class Context(nn.Module):
    """q(w | x) and p(w), for w of ``size`` numbers."""

    size: int

    def draw(self, x: Tensor, noise: Tensor | None = None) -> Drawn:
        """w ~ q(w | x) made of standard normal noise [B, size]; x is scaled data [B, ...]. No noise: the mean."""
        raise NotImplementedError

    def prior(self, noise: Tensor) -> Tensor:
        """w ~ p(w), [B, size], made of standard normal noise like it."""
        raise NotImplementedError


class Basis(nn.Module):
    """An orthonormal map of images [..., C, H, W] to as many coefficients; see likeness.diffusion.basis."""

    def forward(self, x: Tensor) -> Tensor:
        """The coefficients of images."""
        raise NotImplementedError

    def inverse(self, coefficients: Tensor) -> Tensor:
        """The images of coefficients, by the transpose of the map."""
        raise NotImplementedError

    def low(self, input_shape: Sequence[int]) -> Tensor:
        """Which coefficients of a sample of this shape are of the low band, bool [C, H, W].

        Raises ValueError for images of which this is no basis.
        """
        raise NotImplementedError

    def in_pixels(self, network: nn.Module) -> nn.Module:
        """A network of images as one of coefficients: a score network, or the inner network of an encoder."""
        return _InPixels(network, self)


class DiffusionModel(nn.Module, Hierarchy):
    """VDM and DiffEnc in finite and infinite depth.

    Args:
        network: predicts from z_t; see :class:`likeness.diffusion.hierarchy.ScoreFunction`.
        encoder: of the depth-dependent mean.
        schedule: gamma(t); a multivariate one is told the input's shape.
        input_shape: of one sample.
        levels: grey levels of the data, whose values are integers 0 .. levels - 1.
        prediction: what the network predicts.
        counter_term: whether the generative steps model the change of the mean by sigma^2 x_hat dgamma (DiffEnc,
            eq. 15); it belongs to encoders that change the mean.
        plug_in: whether they take it from the encoder itself, applied to x_hat, which then predicts the clean data.
        num_steps: T, or None for infinite depth.
        ratio: of the variances, None for 1.
        volatility: how much of the noise is new at each depth, None for 1, as both papers have it.
        flow_head: a second network like the first, from which the probability flow is taken: for encoders whose flow
            is unknown. See :func:`likeness.diffusion.flow.flow_matching_loss`.
        context: what is drawn before z_1 and told the network and the schedule, None for nothing. All that follows
            from a context is asked of what :meth:`given`, :meth:`for_data` and :meth:`from_prior` answer.
        basis: orthonormal, in which z lives and a multivariate schedule has its gammas, None for pixels. The networks
            are called with images all the same, and what is decoded are images.

    Raises ValueError for fewer than two levels, T < 1, an unknown prediction, a ratio in infinite depth, a schedule
    that may stop while the encoder moves the mean, a network or schedule for another context, and a basis of other
    images, with learned ends, or missing where the schedule needs one.

    Example:
        >>> import torch
        >>> from likeness import DiffusionModel
        >>> from likeness.diffusion import IdentityEncoder, LinearSchedule
        >>> from likeness.networks import ScoreMLP
        >>> model = DiffusionModel(ScoreMLP((2,), width=8), IdentityEncoder(), LinearSchedule(), (2,), levels=256)
        >>> points = torch.tensor([[0, 255], [128, 127]])
        >>> t, (eps_0, eps) = torch.tensor([0.25, 0.75]), torch.zeros(2, 2, 2)
        >>> terms = model.elbo_terms(points, t=t, eps_0=eps_0, eps=eps)  # in nats, one for each point
        >>> terms.total.shape
        torch.Size([2])
    """

    def __init__(
        self,
        network: nn.Module,
        encoder: DepthEncoder,
        schedule: NoiseSchedule,
        input_shape: Sequence[int],
        levels: int,
        prediction: Prediction = "v",
        counter_term: bool = False,
        num_steps: int | None = None,
        ratio: VarianceRatio | None = None,
        volatility: Volatility | None = None,
        plug_in: bool = False,
        context: Context | None = None,
        basis: Basis | None = None,
        flow_head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if levels < 2:
            raise ValueError(f"levels must be at least 2, got {levels}")
        if prediction not in get_args(Prediction):
            raise ValueError(f"prediction must be one of {', '.join(get_args(Prediction))}, got {prediction!r}")
        if schedule.may_stop and encoder.has_derivative:
            names = f"{type(schedule).__name__} with floor=0 and {type(encoder).__name__}"
            raise ValueError(f"{names}: the mean would move where gamma stands still, at any cost; set a floor")
        if plug_in and (counter_term or schedule.multivariate):
            other = "counter_term: both model how the mean changes" if counter_term else type(schedule).__name__
            raise ValueError(f"plug_in does not go with {other}")
        _require_context(context, network, schedule)
        schedule.for_samples(input_shape)
        _require_basis(basis, schedule)
        if basis is not None:
            schedule.for_band(basis.low(input_shape))
            network, encoder = basis.in_pixels(network), encoder.in_basis(basis)
            flow_head = None if flow_head is None else basis.in_pixels(flow_head)
        self.network, self.encoder, self.schedule, self.basis = network, encoder, schedule, basis
        self.ratio, self.volatility, self.context, self.flow_head = ratio, volatility, context, flow_head
        self.input_shape, self.levels = tuple(input_shape), levels
        self.prediction: Prediction = prediction
        self.counter_term, self.plug_in = counter_term, plug_in
        self.reach = None if schedule.learned_ends else neighbours_within_reach(schedule.gamma_min, levels)
        self.num_steps = num_steps

    @property
    def num_steps(self) -> int | None:
        """T, or None for infinite depth; it can be changed after training."""
        return self._num_steps

    @num_steps.setter
    def num_steps(self, num_steps: int | None) -> None:
        require_positive(num_steps=num_steps)
        self._num_steps = num_steps
        self._require_finite_depth_for_ratio()

    @property
    def dtype(self) -> torch.dtype:
        """Of the network's weights."""
        weights = chain(self.network.parameters(), self.network.buffers())
        return next((tensor.dtype for tensor in weights if tensor.is_floating_point()), torch.get_default_dtype())

    def elbo_terms(  # type: ignore[override]  # there may be a term more
        self, images: Tensor, *, eps: Tensor, eps_context: Tensor | None = None, **options: Any
    ) -> AnyTerms:
        """As :meth:`Hierarchy.elbo_terms`; with a context, drawn with the noise ``eps_context`` [B, K], its KL too.

        Raises ValueError for a context without noise: at its mean the bound would be none.
        """
        if self.context is None:
            return super().elbo_terms(images, eps=eps, **options)
        require_context_noise(self, eps_context)
        context = self.context.draw(self.pixels(self.scale(images, eps.dtype)), eps_context)
        terms = self.given(context.value).elbo_terms(images, eps=eps, **options)
        return ElboTermsWithContext(*terms, context.kl)

    @property
    @override
    def terms_kind(self) -> type[AnyTerms]:
        return super().terms_kind if self.context is None else ElboTermsWithContext

    @property
    @override
    def context_size(self) -> int | None:
        return None if self.context is None else self.context.size

    def given(self, context: Tensor) -> Hierarchy:
        """The model of samples with these contexts, [B, K]."""
        return _Given(self, context)

    @override
    def for_data(self, x: Tensor, eps_context: Tensor | None = None) -> tuple[Hierarchy, Drawn | None]:
        if self.context is None:
            return self, None
        context = self.context.draw(self.pixels(x), eps_context)
        return self.given(context.value), context

    @override
    def from_prior(self, count: int, generator: torch.Generator) -> Hierarchy:
        noise = self.context_noise(count, generator)
        return self if self.context is None or noise is None else self.given(self.context.prior(noise))


class _Given(Hierarchy):
    """A model whose network and schedule know the contexts of one batch."""

    def __init__(self, model: DiffusionModel, context: Tensor) -> None:
        self._num_steps = model.num_steps
        self.network = _informed(model.network, context)
        self.flow_head = None if model.flow_head is None else _informed(model.flow_head, context)
        self.encoder, self.schedule = model.encoder, model.schedule.given(context)
        self.ratio, self.volatility, self.basis = model.ratio, model.volatility, model.basis
        self.input_shape, self.levels, self.reach = model.input_shape, model.levels, model.reach
        self.prediction, self.counter_term, self.plug_in = model.prediction, model.counter_term, model.plug_in
        self._dtype = model.dtype

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    @property
    def num_steps(self) -> int | None:
        return self._num_steps


def _informed(network: nn.Module, context: Tensor) -> nn.Module:
    return network if getattr(network, "context_size", None) is None else _Informed(network, context)


class _Informed(nn.Module):
    """A network that is told the contexts of one batch."""

    def __init__(self, network: nn.Module, context: Tensor) -> None:
        super().__init__()
        self.network, self.context = network, context

    def forward(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.network(z, gamma, labels, self.context)  # type: ignore[no-any-return]

    def features(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        """As the network's, of the contexts too."""
        return self.network.features(z, gamma, labels, self.context)  # type: ignore[operator, no-any-return]


class _InPixels(nn.Module):
    """A network whose images are given and answered by their coefficients; gamma and a context go in as they are."""

    def __init__(self, network: nn.Module, basis: Basis) -> None:
        super().__init__()
        self.network, self.basis = network, basis
        self.context_size: int | None = getattr(network, "context_size", None)

    def forward(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None, *context: Tensor) -> Tensor:
        """The coefficients of its answer, in the dtype of z."""
        return self.basis(self.network(self.basis.inverse(z), gamma, labels, *context).to(z))  # type: ignore[no-any-return]

    def features(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None, *context: Tensor) -> Tensor:
        """As the network's."""
        return self.network.features(self.basis.inverse(z), gamma, labels, *context)  # type: ignore[operator, no-any-return]

    def with_derivative(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The coefficients of its answer and of the derivative with respect to gamma."""
        y, derivative = self.network.with_derivative(self.basis.inverse(x), gamma, labels)  # type: ignore[operator]
        return self.basis(y.to(x)), self.basis(derivative.to(x))


def _require_basis(basis: Basis | None, schedule: NoiseSchedule) -> None:
    """Raise ValueError for a schedule that lacks a basis, and for a basis whose ends might not stay equal."""
    name = type(schedule).__name__
    if basis is None and schedule.needs_band:
        raise ValueError(f"{name} says when the low band of a basis is made: set basis")
    if basis is not None and schedule.learned_ends:
        raise ValueError(f"a basis needs ends that stay the same for all coefficients, {name} learns them")


def _require_context(context: Context | None, network: nn.Module, schedule: NoiseSchedule) -> None:
    """Raise ValueError where the network or the schedule is built for another context than there is, or none."""
    size = None if context is None else context.size
    for part in (network, schedule):
        wanted = getattr(part, "context_size", None)
        if wanted is not None and wanted != size:
            has = "there is no context" if size is None else f"the context has {size} numbers"
            raise ValueError(f"{type(part).__name__} has context_size={wanted}, but {has}")
    told = [part for part in (network, schedule) if getattr(part, "context_size", None) is not None]
    if context is not None and not told:
        names = f"{type(network).__name__} nor {type(schedule).__name__}"
        raise ValueError(f"a context that neither {names} is told: set context_size={size} of one of them")
