"""A context: its KL against other formulas, bounds of sources of known entropy given it, and all that is made of it."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from typing_extensions import override

from likeness.diffusion import ContextPolynomial, GaussianContext, LinearSchedule, MultivariatePolynomial
from likeness.diffusion.coding import Coder
from likeness.diffusion.dequantisation import centred, truncation
from likeness.diffusion.diagnostics.bound_profiles import depth_curve
from likeness.diffusion.diagnostics.by_depth import depth_profile, mean_at, noisy_batches
from likeness.diffusion.elbo import ElboTerms, ElboTermsWithContext, bits_per_dim
from likeness.diffusion.fitting import fit_ratio, fit_volatility
from likeness.diffusion.hierarchy import Drawn
from likeness.diffusion.likelihoods import dequantised_bound, flow_bound, importance_weighted_bound, log_weight
from likeness.diffusion.model import Context, DiffusionModel
from likeness.diffusion.process import evaluation_noise, scaled, training_noise
from likeness.diffusion.sampling import sample
from likeness.diffusion.schedules import gamma_grid
from likeness.networks import ContextCNN, ContextMLP, ScoreMLP, ScoreUNet
from likeness.seeding import generator
from tests.likeness.diffusion.exact_models import GAMMA_0, DiscreteHead, encoder_of, factor_of, model_of
from tests.likeness.diffusion.source_models import SOURCES
from tests.likeness.diffusion.test_discrete_data import expected_terms

DIMS, SIZE = 3, 2


def shaken(module: nn.Module, scale: float = 0.3) -> nn.Module:
    """Away from its start, where much is zero."""
    source = generator(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=source, dtype=parameter.dtype))
    return module


def told(num_steps: int | None = None, encoder: float = 1.0, **options: object) -> DiffusionModel:
    """A model of three numbers whose network and schedule know a context of two."""
    torch.manual_seed(0)
    context = GaussianContext((DIMS,), SIZE, lambda shape, outputs: ContextMLP(shape, outputs, width=8))
    network = ScoreMLP((DIMS,), width=16, gamma_map=True, context_size=SIZE)
    schedule = ContextPolynomial(context_size=SIZE, width=8)
    options |= {"context": context, "num_steps": num_steps}
    return shaken(model_of(network, encoder_of(encoder), schedule, DIMS, **options), 0.1).eval()  # type: ignore[return-value, arg-type]


def exact(num_steps: int | None = None) -> DiffusionModel:
    """The exact denoiser of sixteen levels in each of three dimensions, on paths of a context that does not help it."""
    torch.manual_seed(0)
    schedule, context = ContextPolynomial(context_size=SIZE, width=8), GaussianContext((DIMS,), SIZE, ContextMLP)
    head = DiscreteHead(scaled(SOURCES["sixteen"], 256, torch.float64), factor_of(1.0), "v", False)
    model = model_of(head, schedule=schedule, dims=DIMS, context=context, num_steps=num_steps)
    shaken(schedule), shaken(context, 0.1)
    return model.eval()


def draw(rows: int) -> tuple[Tensor, dict[str, Tensor | None]]:
    images = torch.randint(0, 256, (rows, DIMS), generator=generator())
    like = torch.empty(rows, DIMS, dtype=torch.float64)
    return images, training_noise(like, 0, 0, 0, 1, context_size=SIZE)._asdict()


def test_the_kl_is_that_of_normal_distributions() -> None:
    """And the log ratio of a draw is their log density ratio, whose mean is the KL."""
    context = shaken(GaussianContext((DIMS,), SIZE, ContextMLP).double())
    x, noise = torch.rand(4000, DIMS, dtype=torch.float64), torch.randn(4000, SIZE, generator=generator()).double()
    drawn = context.draw(x, noise)
    q, p = Normal(*context.posterior(x)), Normal(0.0, 1.0)
    torch.testing.assert_close(drawn.kl, kl_divergence(q, p).sum(1))
    torch.testing.assert_close(drawn.log_ratio, (p.log_prob(drawn.value) - q.log_prob(drawn.value)).sum(1))
    excess = drawn.kl + drawn.log_ratio
    assert abs(excess.mean()) < 3 * excess.std() / math.sqrt(4000)
    torch.testing.assert_close(context.draw(x).value, q.mean)


@pytest.mark.parametrize(("network", "shape"), [(ContextMLP, (4,)), (ContextMLP, (1, 4, 6)), (ContextCNN, (2, 12, 8))])
def test_it_costs_nothing_at_the_start(network: type[nn.Module], shape: tuple[int, ...]) -> None:
    context = GaussianContext(shape, 5, network)
    drawn = context.draw(torch.rand(3, *shape), torch.ones(3, 5))
    assert drawn.kl.tolist() == [0.0] * 3
    assert torch.equal(drawn.value, torch.ones(3, 5))


class Half(Context):
    """Which half of the levels a datum is in: one bit of the data. p(w) is even."""

    size = 1

    @override
    def draw(self, x: Tensor, noise: Tensor | None = None) -> Drawn:
        cost = x.new_full((len(x),), math.log(2))
        return Drawn((x[:, :1] > 0).double(), cost, -cost)


class Unrelated(Context):
    """A fair coin, whatever the datum."""

    size = 1

    @override
    def draw(self, x: Tensor, noise: Tensor | None = None) -> Drawn:
        assert noise is not None
        return Drawn((noise > 0).double(), x.new_zeros(len(x)), x.new_zeros(len(x)))


class TwoHeads(nn.Module):
    """The exact denoiser of each half of the levels, or of all of them where the context says nothing."""

    context_size = 1

    def __init__(self, values: Tensor, informed: bool) -> None:
        super().__init__()
        parts = (values[values < 0], values[values > 0]) if informed else (values, values)
        self.heads = nn.ModuleList(DiscreteHead(part, factor_of(1.0), "v", False) for part in parts)

    def forward(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        assert context is not None
        low, high = (head(z, gamma) for head in self.heads)
        return torch.where(context > 0, high, low)


@pytest.mark.parametrize(("context", "kl_bits"), [(Half, 1.0), (Unrelated, 0.0)])
def test_a_source_of_four_bits_costs_four(context: type[Context], kl_bits: float) -> None:
    """L7: with exact networks a context that says a bit of the data costs that bit, and one that says nothing, none.

    At gamma_1 = 12, as z_1 would still know a thousandth of a bit of the context at 5.
    """
    data = SOURCES["sixteen"]
    network = TwoHeads(scaled(data, 256, torch.float64), informed=context is Half)
    model = model_of(network, schedule=LinearSchedule(GAMMA_0, 12.0), context=context())
    terms = expected_terms(model, data, 64, 0.25, 6.5)
    assert isinstance(terms, ElboTermsWithContext)
    assert float(terms.context) == pytest.approx(kl_bits, abs=1e-12)
    assert float(terms.total) == pytest.approx(4.010460, abs=1e-5)


@pytest.mark.parametrize("num_steps", [None, 5])
@pytest.mark.parametrize("encoder", [0.0, 0.5, 1.0])
def test_at_the_start_it_is_the_model_without(num_steps: int | None, encoder: float) -> None:
    """Float64: the networks' answers and the line are the same, and the KL is 0."""
    images, noise = draw(6)
    torch.manual_seed(0)
    context = GaussianContext((DIMS,), SIZE, ContextMLP)
    network = ScoreMLP((DIMS,), width=16, context_size=SIZE)
    nn.init.normal_(network.out.weight, generator=generator(1))
    bare = ScoreMLP((DIMS,), width=16)
    bare.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("context")})
    schedule = ContextPolynomial(context_size=SIZE, width=8)
    own = model_of(network, encoder_of(encoder), schedule, DIMS, context=context, num_steps=num_steps)
    plain = model_of(bare, encoder_of(encoder), LinearSchedule(), DIMS, num_steps=num_steps)
    found = own.elbo_terms(images, **noise)
    assert isinstance(found, ElboTermsWithContext)
    assert found.context.tolist() == [0.0] * 6
    for term, expected in zip(found[:3], plain.elbo_terms(images, **noise), strict=True):
        torch.testing.assert_close(term, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("num_steps", [None, 5])
def test_an_ignored_context_costs_its_kl(num_steps: int | None) -> None:
    """L7: the network answers the same for each w and the path is one for all."""
    images, noise = draw(6)
    model = told(num_steps)
    with torch.no_grad():
        model.network.context.map.weight.zero_()
        for head in (model.schedule.head_a, model.schedule.head_b, model.schedule.head_raw):
            head.weight.zero_()
    path = MultivariatePolynomial(dims=(DIMS,)).double()
    for name in ("a", "b", "raw"):
        getattr(path, name).data.copy_(getattr(model.schedule, f"head_{name}").bias.data)
    bare = ScoreMLP((DIMS,), width=16, gamma_map=True).double()
    bare.load_state_dict({k: v for k, v in model.network.state_dict().items() if not k.startswith("context")})
    plain = model_of(bare, schedule=path, dims=DIMS, num_steps=num_steps).elbo_terms(images, **noise)
    found = model.elbo_terms(images, **noise)
    assert isinstance(plain, ElboTerms)
    assert isinstance(found, ElboTermsWithContext)
    kl = model.context.draw(model.scale(images)).kl
    assert (kl > 0).all()
    torch.testing.assert_close(found.total, plain.total + kl, rtol=1e-9, atol=1e-9)


def test_a_path_of_each_sample_is_the_one_that_its_context_gives() -> None:
    """Row by row it is a MultivariatePolynomial; increments are differences of gamma, and add up to the whole."""
    schedule = shaken(ContextPolynomial(context_size=SIZE, width=8, dims=(DIMS,), floor=0.2).double())
    contexts = torch.randn(4, SIZE, generator=generator()).double()
    given, t = schedule.given(contexts), torch.tensor([0.0, 0.3, 0.7, 1.0], dtype=torch.float64)
    gamma, slope = given.with_derivative(t)
    assert gamma.shape == slope.shape == (4, DIMS)
    assert torch.unique(gamma[1:3]).numel() == 2 * DIMS
    for row in range(4):
        alone = MultivariatePolynomial(dims=(DIMS,), floor=0.2).double()
        for name in ("a", "b", "raw"):
            getattr(alone, name).data.copy_(getattr(given, name)[row])
        expected = alone.with_derivative(t[row])
        torch.testing.assert_close((gamma[row], slope[row]), expected)
    torch.testing.assert_close(gamma[[0, 3]], torch.tensor([[-13.3], [5.0]]).double().expand(2, DIMS))
    late = torch.full((4,), 0.8, dtype=torch.float64)
    torch.testing.assert_close(given.increment(late, 0.1), given(late) - given(late - 0.1))
    steps = [given.increment(torch.full((4,), n / 9, dtype=torch.float64), 1 / 9) for n in range(1, 10)]
    torch.testing.assert_close(torch.stack(steps).sum(0), torch.full((4, DIMS), 18.3, dtype=torch.float64))
    grid = gamma_grid(given, 9)
    assert grid.shape == (10, 4, DIMS)
    torch.testing.assert_close(grid[3], given(torch.full((4,), 6 / 9, dtype=torch.float64)))


@pytest.mark.parametrize("encoder", [0.0, 0.5, 1.0])
def test_one_path_in_expectation_costs_the_elbo(encoder: float) -> None:
    """Of one weight the expectation is the negative ELBO with its KL, and that of twenty is lower."""
    model = told(num_steps=4, encoder=encoder, counter_term=encoder != 1)
    images = torch.randint(0, 256, (1, DIMS), generator=generator(3)).expand(20_000, DIMS)
    like = torch.empty(len(images), DIMS, dtype=torch.float64)
    noise = training_noise(like, 3, 0, 0, 1, context_size=SIZE)._asdict()
    with torch.no_grad():
        elbo = model.elbo_terms(images, **noise).total
    one = -log_weight(model, images, generator(4))
    error = math.sqrt((elbo.var() + one.var()) / len(images))
    assert abs(elbo.mean() - one.mean()) < 3 * error
    several = importance_weighted_bound(model, images[:1000], 20, generator(5))
    assert several.mean() < one.mean() - 5 * error


def test_the_flow_is_that_of_each_context() -> None:
    """The bound is the mean of those of the contexts one by one, and the KL."""
    model = exact()
    images, noise = SOURCES["sixteen"][torch.tensor([[3, 15, 0], [7, 8, 12]])], draw(2)[1]
    eps_0, eps_context = noise["eps_0"], noise["eps_context"]
    found = flow_bound(model, images, eps_0, tolerance=1e-6, eps_context=eps_context)
    drawn = model.context.draw(model.scale(images), eps_context)
    for row in range(2):
        own = slice(row, row + 1)
        given = model.given(drawn.value[own])
        alone = flow_bound(given, images[own], eps_0[own], tolerance=1e-6)  # type: ignore[arg-type]
        torch.testing.assert_close(found[own], alone + drawn.kl[own], rtol=1e-3, atol=1e-3)


def test_draws_in_a_cell_have_contexts_of_their_own() -> None:
    """One draw costs the KL; the weight of one of several is p(w) p(z_0 | w) over q(w | x) q(z_0 | x).

    To .005 nats, which the solver leaves; the KL is more than four times that.
    """
    model, noise = exact(), draw(2)[1]
    images = SOURCES["sixteen"][torch.tensor([[3, 15, 0]])]
    eps_0, eps_context = noise["eps_0"][:, None], noise["eps_context"][:, None]
    drawn = [model.context.draw(model.scale(images), noise) for noise in eps_context]
    assert all(one.kl.item() > 0.02 for one in drawn)
    alone = [
        dequantised_bound(model.given(one.value), images, eps[None], tolerance=1e-4)  # type: ignore[arg-type]
        for one, eps in zip(drawn, eps_0, strict=True)
    ]
    found = dequantised_bound(model, images, eps_0[:1], tolerance=1e-4, eps_context=eps_context[:1])
    torch.testing.assert_close(found, alone[0] + drawn[0].kl, rtol=0, atol=5e-3)
    q = centred(eps_0, truncation(model, torch.tensor(GAMMA_0, dtype=torch.float64)))
    surprise = [q.log_density(q.cut(eps)).sum(1) + DIMS * q.entropy() for eps in eps_0]  # beside its mean
    weights = [one.log_ratio - bits - more for one, bits, more in zip(drawn, alone, surprise, strict=True)]
    expected = math.log(2) - torch.stack(weights).logsumexp(0)
    both = dequantised_bound(model, images, eps_0, tolerance=1e-4, eps_context=eps_context)
    torch.testing.assert_close(both, expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize("method", ["ancestral", "flow"])
def test_samples_are_of_contexts_from_the_prior(method: str) -> None:
    """The context decides: with other contexts the same noise leads elsewhere; the same seed leads to the same."""
    model = told()

    def drawn(seed: int) -> Tensor:
        given = model.from_prior(5, generator(seed))
        return sample(given, 5, gamma_grid(given.schedule, 8), generator(1), method).levels  # type: ignore[arg-type]

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(2))
    with pytest.raises(ValueError, match=r"gamma\(t\) of a ContextPolynomial is a function of a context"):
        gamma_grid(model.schedule, 8)


def test_the_coder_takes_the_context_off_first() -> None:
    """What went in comes back, from several batches; with exact networks the net size is that of one weighted path."""
    model, images = told(num_steps=4, encoder=0.5, counter_term=True).float(), draw(12)[0]
    coder = Coder(model, batch_size=5)
    assert torch.equal(coder.decode(coder.encode(images)), images)
    model = exact(num_steps=20)
    images = SOURCES["sixteen"][torch.randint(0, 16, (1500, DIMS), generator=generator())]
    coder = Coder(model, batch_size=1000)
    coded = coder.encode(images)
    assert torch.equal(coder.decode(coded), images)
    bits = -log_weight(model, images, generator(5)) / math.log(2)
    error = bits.std().item() * math.sqrt(2 / len(images))
    assert coded.net_bits / len(images) == pytest.approx(bits.mean().item(), abs=3 * error)


def test_a_ratio_of_each_sample_is_that_sample_s_own() -> None:
    """As many samples as columns: what is fitted in bins of the mean gamma is laid over samples, not over columns."""
    model = told(num_steps=6, encoder=0.5, counter_term=True)
    images = draw(200)[0]
    model.ratio = fit_ratio(model, [(images, None)], generator())
    x = model.scale(images[:DIMS])
    given, _ = model.for_data(x)
    grid = gamma_grid(given.schedule, 6)
    whole = given.generative_step(x, grid[3], grid[2], x, model.ratio).variance
    assert whole.unique().numel() > DIMS
    for row in range(DIMS):
        own = slice(row, row + 1)
        alone = model.for_data(x[own])[0]
        at = (grid[3][own], grid[2][own])
        torch.testing.assert_close(
            whole[own], alone.generative_step(x[own], *at, x[own], model.ratio).variance, rtol=1e-6, atol=0
        )
    coder = Coder(model, batch_size=5)
    assert torch.equal(coder.decode(coder.encode(images[:12])), images[:12])


def test_what_looks_inside_counts_the_context() -> None:
    """The curve over depths ends at the bound with its KL; sizes by depth are over the path of each sample."""
    model, images = told(encoder=0.0, counter_term=True), draw(6)[0]
    ids = torch.arange(6)
    batches = [list(noisy_batches(model, images, ids, None, 0, number, 4)) for number in range(2)]
    *_, limit = depth_curve(model, [2], *batches)
    totals = torch.cat([batch.terms(model).total for batch in batches[1]]).detach()
    assert limit.bpd == pytest.approx(float(bits_per_dim(totals, DIMS).mean()))
    times = torch.tensor([0.3, 0.7], dtype=torch.float64)
    profile = depth_profile(model, images, times, 0)
    x = model.scale(images)
    for t, shift in zip(times.tolist(), profile.shift, strict=True):
        torch.testing.assert_close(shift, (mean_at(model, images, t) - x).square().mean().sqrt())


def test_noise_of_a_context_changes_no_other() -> None:
    """So that a model with a context is compared with one without on the same noise; ids decide it, not batches."""
    like, ids = torch.empty(6, DIMS), torch.arange(6)
    for plain, own in (
        (training_noise(like, 1, 2, 0, 1), training_noise(like, 1, 2, 0, 1, context_size=4)),
        (evaluation_noise(like, ids, 1, 0), evaluation_noise(like, ids, 1, 0, context_size=4)),
    ):
        assert plain.eps_context is None
        assert own.eps_context is not None
        assert own.eps_context.shape == (6, 4)
        assert all(torch.equal(a, b) for a, b in zip(plain[:3], own[:3], strict=True))
    later = evaluation_noise(like[:2], ids[3:5], 1, 0, context_size=4).eps_context
    assert torch.equal(own.eps_context[3:5], later)  # type: ignore[arg-type]
    ranks = [training_noise(like[:3], 1, 2, rank, 2, context_size=4).eps_context for rank in range(2)]
    whole = training_noise(like, 1, 2, 0, 1, context_size=4).eps_context
    assert all(torch.equal(part, whole[rank::2]) for rank, part in enumerate(ranks))  # type: ignore[index, arg-type]


@pytest.mark.long
def test_it_compiles_to_the_same_numbers() -> None:
    torch.manual_seed(0)
    sizes = {"width": 8, "depth": 1, "groups": 4}
    model = DiffusionModel(
        ScoreUNet((1, 4, 4), gamma_map=True, context_size=SIZE, **sizes),  # type: ignore[arg-type]
        encoder_of(0.0),
        ContextPolynomial(context_size=SIZE, width=8),
        (1, 4, 4),
        levels=17,
        context=GaussianContext((1, 4, 4), SIZE),
    ).eval()
    shaken(model, 0.05)
    images = torch.randint(0, 17, (3, 1, 4, 4), generator=generator())
    noise = training_noise(torch.empty(3, 1, 4, 4), 0, 0, 0, 1, context_size=SIZE)._asdict()
    compiled = torch.compile(model.elbo_terms, fullgraph=True, backend="aot_eager")
    for found, expected in zip(compiled(images, **noise), model.elbo_terms(images, **noise), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_bound_at_the_mean_is_refused() -> None:
    """Its KL is that of draws: a context without noise would say more than it is charged for."""
    model, (images, noise) = exact(), draw(2)
    eps_0 = noise["eps_0"]
    with pytest.raises(ValueError, match=r"needs its noise: eps_context \[B, 2\]"):
        model.elbo_terms(images, **noise | {"eps_context": None})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"needs its noise: eps_context \[B, 2\]"):
        flow_bound(model, images, eps_0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"needs its noise: eps_context \[B, 2\]"):
        dequantised_bound(model, images, eps_0[None])  # type: ignore[index]


def test_what_does_not_fit_is_refused() -> None:
    network = ScoreMLP((DIMS,), width=8, context_size=SIZE)
    with pytest.raises(ValueError, match="ScoreMLP has context_size=2, but there is no context"):
        model_of(network, dims=DIMS)
    with pytest.raises(ValueError, match="ScoreMLP has context_size=2, but the context has 3 numbers"):
        model_of(network, dims=DIMS, context=GaussianContext((DIMS,), 3, ContextMLP))
    with pytest.raises(ValueError, match="neither ScoreMLP nor LinearSchedule is told: set context_size=3"):
        model_of(ScoreMLP((DIMS,), width=8), dims=DIMS, context=GaussianContext((DIMS,), 3, ContextMLP))
    with pytest.raises(ValueError, match=r"context_size=2 takes a context \[4, 2\], got None"):
        network(torch.zeros(4, DIMS), torch.zeros(4))
    with pytest.raises(ValueError, match=r"takes a context \[B, 2\] of samples \(3,\), got \[4, 3\]"):
        ContextPolynomial(context_size=2, dims=(DIMS,)).given(torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"num_steps=3, cannot be fitted where ContextPolynomial gives each"):
        fit_volatility(told(num_steps=3), [(draw(4)[0], None)], generator())
