"""Accuracy and NLL of softmax classifiers on a split."""

from collections.abc import Sequence

import torch
from torch import Tensor

from likeness.protocols import SoftmaxModel
from likeness.similarity.predictions import is_correct, logits, nll
from scripts.evaluate.data import EvaluatedSplit
from scripts.reporting import Row


@torch.no_grad()
def evaluate_classifiers(models: Sequence[tuple[str, SoftmaxModel]], split: EvaluatedSplit) -> list[Row]:
    """A row for each model: accuracy, and the mean negative log-likelihood of the labels in nats.

    Raises ValueError naming the model whose number of labels or shape of inputs does not fit the data.
    """
    for name, model in models:
        if isinstance(model, torch.nn.Module):
            model.to(split.device)
        labels = model.unembeddings().shape[0]
        if labels != split.data.num_classes:
            has = f"{split.data.dataset_name} has {split.data.num_classes}"
            raise ValueError(f"{name} has {labels} labels, but {has}")
    correct, loss = torch.zeros(2, len(models), dtype=torch.float64)
    for batch in split.batches("evaluating"):
        scores = logits(
            [_embed(name, model, batch.x) for name, model in models], [model.unembeddings() for _, model in models]
        )
        # By the logits: two that differ can round to one log-probability.
        correct += is_correct(scores, batch.y).sum(1).cpu()
        loss += nll(scores.log_softmax(-1), batch.y).sum(1).cpu()
    return [
        {"model": name, "accuracy": float(correct[i] / split.size), "nll": float(loss[i] / split.size)}
        for i, (name, _) in enumerate(models)
    ]


def _embed(name: str, model: SoftmaxModel, x: Tensor) -> Tensor:
    try:
        return model.embed(x)
    except ValueError as error:
        raise ValueError(f"{name} does not take inputs {list(x.shape[1:])}: {error}") from error
