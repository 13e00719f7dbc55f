"""torch's default dtype decides nothing for a model that is there: not its dtype, not which noise is drawn."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from lightning_modules import SiblingClassifiers, SoftmaxClassifier
from lightning_modules.diffusion import VariationalDiffusion
from likeness.diffusion.diagnostics.bound_profiles import depth_curve, ratio_profile
from likeness.diffusion.diagnostics.by_depth import depth_profile, gradient_norms, noisy_batches
from likeness.diffusion.fitting import fit_ratio
from likeness.diffusion.likelihoods import flow_bound, importance_weighted_bound
from likeness.diffusion.process import training_noise
from likeness.diffusion.sampling import sample
from likeness.diffusion.schedules import gamma_grid
from likeness.networks import CNN, MLP
from likeness.seeding import generator
from tests.lightning_modules.tiny_diffusion import SCORE, awake, batch, diffenc, vdm
from tests.lightning_modules.tiny_sentences import TEXTS, encoder


@pytest.fixture
def _restored() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)


def training(module: VariationalDiffusion) -> Iterator[Tensor]:
    images = batch(6).x
    noise = training_noise(module._like(images), 0, 0, 0, 1)
    torch.manual_seed(0)
    terms = module.train().diffusion.elbo_terms(images, **noise._asdict(), lean=True)
    yield from (noise.t, noise.eps_0, noise.eps, *terms)
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    yield from torch.autograd.grad(terms.total.mean(), weights)
    module.eval()


def evaluation(module: VariationalDiffusion) -> Iterator[Tensor]:
    known = batch(6)
    yield from module._evaluate(known, module.val_bound)["terms"]
    yield from module.val_bound.compute().values()
    module.val_bound.reset()
    yield from module.predict_step(known, 0).values()
    yield module.encode(known.x, 0.3)


def diagnostics(module: VariationalDiffusion) -> Iterator[Tensor]:
    model, known = module.diffusion, batch(6)
    noisy = list(noisy_batches(model, known.x, known.id, None, seed=0, draw=0, size=4))
    yield from depth_profile(model, known.x, torch.tensor([0.1, 0.9], dtype=torch.float32), seed=0)
    yield gradient_norms(model, known.x, num_bins=2, seed=0)
    yield torch.tensor([point[1:] for point in depth_curve(model, [3], noisy, noisy)], dtype=torch.float64)


def sampling(module: VariationalDiffusion) -> Iterator[Tensor]:
    grid = gamma_grid(module.diffusion.schedule, 4)
    for method in ("ancestral", "flow"):
        drawn = sample(
            module.diffusion, 3, grid, generator(0), method, clip_quantile=0.9, categorical=True, keep_every=1
        )
        yield drawn.levels
        yield from (part for state in drawn.path for part in state)


def likelihoods(module: VariationalDiffusion) -> Iterator[Tensor]:
    model, known = module.diffusion, batch(6)
    noise = next(noisy_batches(model, known.x, known.id, None, seed=0, draw=0, size=2)).noise
    yield flow_bound(model, known.x[:2], noise.eps_0, probe=noise.eps, tolerance=0.1)
    model.num_steps = 3
    yield importance_weighted_bound(model, known.x, 2, generator(0))
    model.ratio = fit_ratio(model, [(known.x, None)], generator(0))
    yield model.ratio.total
    yield from ratio_profile(model, noisy_batches(model, known.x, known.id, None, seed=0, draw=0, size=6))
    model.ratio = model.num_steps = None


def classifiers(module: SoftmaxClassifier | SiblingClassifiers) -> Iterator[Tensor]:
    torch.manual_seed(0)
    yield from module.eval().predict_step(batch(6), 0).values()
    loss = module.train().network.nll(batch(6).x, batch(6).y).mean()
    yield from (loss, *torch.autograd.grad(loss, [*module.parameters()]))


def sentences(module: torch.nn.Module) -> Iterator[Tensor]:
    yield module.eval().embed(TEXTS)


DIFFENC = partial(diffenc, eval_draws=2, network=partial(SCORE, dropout=0.1))
CLASSIFIER = partial(SoftmaxClassifier, (1, 8, 8), 10, embedding=partial(MLP, dropout=0.2))
SIBLINGS = partial(SiblingClassifiers, (1, 8, 8), 10, 2, embedding=partial(CNN, width=4), embedding_norm=2.0)


@pytest.mark.parametrize(
    ("build", "use"),
    [
        *((lambda: awake(DIFFENC()).eval(), use) for use in (training, evaluation, diagnostics)),
        *((lambda: awake(vdm()).eval(), use) for use in (sampling, likelihoods)),
        (CLASSIFIER, classifiers),
        (SIBLINGS, classifiers),
        (partial(encoder, head="feature_z_n"), sentences),
    ],
)
@pytest.mark.usefixtures("_restored")
def test_the_default_dtype_changes_nothing(build, use) -> None:  # type: ignore[no-untyped-def]
    module = build()
    expected = list(use(module))
    torch.set_default_dtype(torch.float64)
    found = list(use(module))
    assert len(found) == len(expected) > 0
    for got, wanted in zip(found, expected, strict=True):
        assert got.dtype == wanted.dtype
        assert torch.equal(got.nan_to_num(), wanted.nan_to_num())
