"""How good a model is, or its samples: ``python -m scripts.evaluate RUN_CKPT_OR_SAMPLES [--data FILE]``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser, Namespace

from scripts.cli.entry_point import Parser
from scripts.inputs import choose_device, default_data, load_classifiers, load_data, names_a_library_model

if TYPE_CHECKING:
    from lightning_modules.diffusion import VariationalDiffusion
    from likeness.protocols import SoftmaxModel
    from scripts.evaluate.bounds import BoundEvaluation, Depth
    from scripts.evaluate.data import EvaluatedSplit
    from scripts.reporting import Report, Row

DRAWS = 5
DEQUANTISATION_STEPS = 1000
FIT_SAMPLES = 1024  # each of which is seen at all T steps
FITTED = {"ratio": "fitted", "volatility": "fitted", "dequantisation": "learned"}
# Options that say something about models or samples of one kind only.
OF_CELLS = ("ode_samples", "dequantisation", "dequantisation_steps")  # of the bound without a decoder
OF_DIFFUSION = ("steps", "draws", "ratio", "volatility", "fit_samples", "importance", "ode", *OF_CELLS)
OF_SAMPLES = ("features",)
COUNTS = ("draws", "importance", "ode_samples", "dequantisation_steps", "fit_samples", "batch_size", "limit")


def main(argv: Sequence[str] | None = None) -> int:
    """Load, evaluate, print, save; raises what went wrong."""
    arguments = build_parser().parse_args(argv)
    report = evaluate(arguments)
    report.show()
    print(f"likeness: wrote {report.write(Path(arguments.out) / 'evaluation.csv')}")
    return 0


def build_parser() -> ArgumentParser:
    """The command line of this command."""
    parser = Parser(
        prog="likeness evaluate",
        description="Diffusion models: the bound in bits per dimension. Classifiers: accuracy and NLL in nats. "
        "Samples: FID and KID.",
    )
    add = parser.add_argument
    add("model", metavar="RUN_CKPT_OR_SAMPLES", help="A run, a checkpoint, a member (demo#3), or samples.npz.")
    add("--data", type=str | None, help="A data config; by default that of the run.")
    add("--split", type=Literal["train", "val", "test"], default="test", help="The split to evaluate on.")
    add("--weights", type=Literal["ema", "raw"], default="ema", help="Averages over steps (ema), or the last (raw).")
    add("--steps", type=str | None, help="Depths T, as 10,100,inf; by default the model's own.")
    add("--ratio", type=Literal["one", "learned", "fitted"] | None, help="Ratio of the variances; fitted is on train.")
    add(
        "--volatility", type=Literal["one", "learned", "fitted"] | None, help="Volatility of noise; fitted is on train."
    )
    add("--fit_samples", type=int | None, help=f"Samples of train for what is fitted; {FIT_SAMPLES} by default.")
    add("--draws", type=int | None, help=f"Draws of the noise for each sample; {DRAWS} by default.")
    add("--importance", type=int | None, help="Also the bound of so many weighted paths a sample, in finite depth.")
    add("--ode", type=Literal["exact", "hutchinson"] | None, help="Also the probability flow's bounds: their trace.")
    add("--ode_samples", type=int | None, help="Draws in the cell of each sample, for that without a decoder; or 1.")
    add(
        "--dequantisation", type=Literal["truncated", "learned"] | None, help="Noise in the cells; learned is on train."
    )
    add("--dequantisation_steps", type=int | None, help=f"Steps that learn it; {DEQUANTISATION_STEPS} by default.")
    add("--features", type=str | None, help="For samples: inception (default), pixels, a checkpoint, or a class path.")
    add("--seed", type=int | None, help="Seed of the noise; by default that of the run.")
    add("--batch_size", type=int | None, help="Samples at a time; it changes no result.")
    add("--limit", type=int | None, help="The most samples of the split, from its start.")
    add("--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="Where it is computed.")
    add("--out", type=str, default="runs/evaluation", help="Where evaluation.csv is written.")
    return parser


def evaluate(arguments: Namespace) -> Report:
    """The report on whatever was named."""
    from lightning_modules.checkpoints import load_module, softmax_models, split_member
    from lightning_modules.diffusion import VariationalDiffusion
    from likeness.checks import require_positive

    require_positive(**{f"--{option}": arguments[option] for option in COUNTS})
    if Path(arguments.model).suffix == ".npz":
        return evaluate_samples(arguments)
    if names_a_library_model(arguments.model):
        return evaluate_classifiers(arguments, load_classifiers(arguments.model))
    location, index = split_member(arguments.model)
    module = load_module(location, arguments.weights).eval().requires_grad_(False)
    if isinstance(module, VariationalDiffusion) and index is None:
        return evaluate_diffusion(arguments, module)
    return evaluate_classifiers(arguments, softmax_models(module, location, index))


def evaluate_classifiers(arguments: Namespace, models: Sequence[tuple[str, SoftmaxModel]]) -> Report:
    """Accuracy and NLL of softmax classifiers."""
    from lightning_modules.checkpoints import short_names
    from scripts.evaluate import classifiers as classifier_evaluation
    from scripts.reporting import Report

    _refuse(arguments, (*OF_DIFFUSION, *OF_SAMPLES), "classifiers")
    split = _open(arguments)
    names = short_names([name for name, _ in models])
    named = [(name, model) for name, (_, model) in zip(names, models, strict=True)]
    rows = classifier_evaluation.evaluate_classifiers(named, split)
    weights = _weights(arguments)
    return Report(f"{split}, {weights}", rows, {"weights": weights, **split.about()})


def evaluate_diffusion(arguments: Namespace, module: VariationalDiffusion) -> Report:
    """The bounds of a diffusion model, and those of models that know next to nothing."""
    from lightning_modules.checkpoints import short_names
    from scripts.evaluate.bounds import BoundEvaluation, baselines, require_fit
    from scripts.evaluate.data import open_split
    from scripts.reporting import Report

    depths = _choose_bounds(arguments, module)
    split = _open(arguments)
    require_fit(module, arguments.model, split)
    train = open_split(split.data, "train", split.device, arguments.batch_size)
    fitted_on = replace(train, size=min(train.size, arguments.fit_samples or FIT_SAMPLES))
    draws = DRAWS if arguments.draws is None else arguments.draws
    seed = module.seed if arguments.seed is None else arguments.seed
    evaluation = BoundEvaluation(module.to(split.device), split, fitted_on, draws, seed)
    rows = [*_bounds(evaluation, depths, arguments), *baselines(split, train)]
    (name,), weights = short_names([arguments.model]), _weights(arguments)
    title = f"{name} ({weights}): bits per dimension of {split}, {draws} draws with seed {seed}"
    return Report(title, rows, {"model": name, "weights": weights, **split.about(), "draws": draws, "seed": seed})


def _choose_bounds(arguments: Namespace, module: VariationalDiffusion) -> list[Depth]:
    """The depths to evaluate; refuses what cannot be computed before anything is."""
    from likeness.diffusion.flow import require_flow
    from scripts.evaluate.bounds import choose_depths, parse_steps

    _refuse(arguments, OF_SAMPLES, "diffusion models")
    model = module.diffusion
    steps = [model.num_steps] if arguments.steps is None else parse_steps(arguments.steps)
    if arguments.importance and None in steps:
        raise ValueError("--importance needs finite --steps: at T = inf no path can be followed")
    if arguments.fit_samples and not any(arguments[option] == value for option, value in FITTED.items()):
        fits = " or ".join(f"--{option} {value}" for option, value in FITTED.items())
        raise ValueError(f"--fit_samples needs something to fit: {fits}")
    if not arguments.ode and (given := [name for name in OF_CELLS if arguments[name] is not None]):
        raise ValueError(f"--{given[0]} needs --ode: it is of the probability flow's bound")
    if arguments.dequantisation_steps and arguments.dequantisation != "learned":
        raise ValueError("--dequantisation_steps needs --dequantisation learned")
    if arguments.ode:
        require_flow(model)
    return choose_depths(model, steps, arguments.ratio, arguments.volatility)


def _bounds(evaluation: BoundEvaluation, depths: Sequence[Depth], arguments: Namespace) -> Iterator[Row]:
    yield from (evaluation.elbo(depth) for depth in depths)
    if evaluation.module.times is not None:
        yield evaluation.elbo(depths[0], uniform=True)
    if arguments.importance:
        yield from (evaluation.importance_weighted(depth, arguments.importance) for depth in depths)
    if arguments.ode:
        yield evaluation.probability_flow(arguments.ode)
        steps = arguments.dequantisation_steps or DEQUANTISATION_STEPS
        learned = evaluation.learn_dequantisation(steps) if arguments.dequantisation == "learned" else None
        yield evaluation.dequantised_flow(arguments.ode, arguments.ode_samples or 1, learned)


def evaluate_samples(arguments: Namespace) -> Report:
    """FID and KID of a file of samples."""
    from scripts.evaluate import samples as sample_quality
    from scripts.evaluate.samples import INCEPTION, open_features
    from scripts.reporting import Report

    _refuse(arguments, OF_DIFFUSION, "files of samples")
    samples = sample_quality.read_samples(Path(arguments.model))
    split = _open(arguments)
    sample_quality.require_fit(samples, split)
    name = arguments.features or INCEPTION
    features = open_features(name, samples.levels, split.device)
    row = sample_quality.evaluate_samples(samples, split, features, arguments.seed or 0)
    title = f"{arguments.model}: {len(samples.images)} samples against {split}, in features {name}"
    return Report(title, [row], {"model": arguments.model, **split.about(), "features": name})


def _open(arguments: Namespace) -> EvaluatedSplit:
    """The split that is evaluated."""
    from scripts.evaluate.data import open_split

    data = load_data(Path(arguments.data) if arguments.data else default_data(arguments.model))
    device = choose_device(arguments.device)
    return open_split(data, arguments.split, device, arguments.batch_size, arguments.limit)


def _refuse(arguments: Namespace, options: Sequence[str], kind: str) -> None:
    for option in options:
        if arguments[option] is not None:
            raise ValueError(f"--{option} says nothing about {kind}, such as {arguments.model}")


def _weights(arguments: Namespace) -> str:
    """Which of a run's weights these are."""
    from lightning_modules.checkpoints import averages_weights, split_member

    if names_a_library_model(arguments.model) or not averages_weights(split_member(arguments.model)[0]):
        return "weights not averaged"
    return "averaged weights" if arguments.weights == "ema" else "raw weights"
