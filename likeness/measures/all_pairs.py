"""Every measure between all pairs of P softmax models at once: what callbacks and the compare door read.

Between two models alone, :func:`likeness.measures.softmax_comparison.compare_softmax_models` tells more.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from likeness.measures import d_fg, logit_distance
from likeness.measures.cloud import Pairs
from likeness.measures.comparison_options import ComparisonOptions
from likeness.measures.log_likelihood_variance import d_llv_of_pairs, label_side
from likeness.measures.softmax_models import SoftmaxModels
from likeness.measures.threads import threads_for

TERMS = ("d_llv", "term_1", "term_2", "term_3", "term_4")
SVD_DISTANCES = ("max_d_svd_f", "max_d_svd_f_upper", "max_d_svd_f_of_ties", "certificate", "d_fg", "d_fg_upper")
LIKELIHOOD_DISTANCES = (*TERMS, "d_svd_g", *SVD_DISTANCES)


def compare_all_pairs(
    embeddings: Sequence[Tensor] | Tensor,
    unembeddings: Sequence[Tensor] | Tensor,
    *,
    names: Sequence[str] | None = None,
    options: ComparisonOptions | None = None,
) -> dict[str, Tensor]:
    """The measures by name, each [P, P] in float64, of models with f_i [N, M_i] and g_i [K, M_i] (or [P, ...] tensors).

    Names are the fields of :class:`likeness.measures.comparison_result.SoftmaxComparison`. Row i is the first model of
    a pair: KL(p_i || p_j), d_logit^2 over E |u_i|^2, E |f_i - A f_j|^2. What is undefined, between models whose M
    differ or where K < M + 2, is nan. By default the input set is the best of 200 disjoint random ones, since the
    exact search takes of the order of N^2 operations a pair.

    Raises ValueError as :meth:`SoftmaxModels.of` and :func:`likeness.measures.label_side.choose_labels` do.
    """
    options = options or ComparisonOptions(search="sampled")
    embeddings, unembeddings = list(embeddings), list(unembeddings)
    with threads_for(options.largest_tensor(embeddings, unembeddings)):
        return _compare(SoftmaxModels.of(embeddings, unembeddings, names), options)


def _compare(models: SoftmaxModels, options: ComparisonOptions) -> dict[str, Tensor]:
    predicted = models.predictions
    result = {
        "kl": predicted.kl,
        "js": predicted.js,
        "total_variation": predicted.total_variation,
        "agreement": predicted.agreement,
        "m_cca_f": models.m_cca_f,
        "m_cca_g": models.m_cca_g,
    }
    return result | _logit_distances(models) | _likelihood_distances(models, options)


def _logit_distances(models: SoftmaxModels) -> dict[str, Tensor]:
    squared = logit_distance.pairwise_d_logit_squared(models.labels)
    power = logit_distance.logit_power(models.labels)
    return {
        "d_logit": squared.sqrt(),
        "d_logit_normalised": squared / power[:, None],
        "d_rep": logit_distance.pairwise_d_rep_squared(models.labels, models.heads).sqrt(),
    }


def _likelihood_distances(models: SoftmaxModels, options: ComparisonOptions) -> dict[str, Tensor]:
    """d_LLV and d_{f,g}, which are symmetric."""
    count = len(models.names)
    undefined = models.predictions.kl.new_full((count, count), torch.nan).fill_diagonal_(0)
    result = {name: undefined.clone() for name in LIKELIHOOD_DISTANCES}
    for pairs, dim in models.all_pairs():
        for name, values in _of_pairs(models, pairs, dim, options).items():
            result[name][pairs] = values
            result[name].T[pairs] = values
    return result


def _of_pairs(models: SoftmaxModels, pairs: Pairs, dim: int | None, options: ComparisonOptions) -> dict[str, Tensor]:
    """What is defined of pairs whose models have this M."""
    if dim is None and options.input_set is None:
        _, terms = label_side(models, pairs, options)
        return {"term_1": terms.term_1, "term_3": terms.term_3}
    llv = d_llv_of_pairs(models, pairs, options)
    of_g = d_fg.input_svd(models, pairs, llv.inputs)
    values = {name: getattr(llv, name) for name in TERMS} | {"d_svd_g": of_g}
    if dim is None or models.num_labels < dim + 2:
        return values
    of_f = d_fg.label_svd(models, pairs, llv.labels, options)
    whole = d_fg.d_fg(of_f.largest, of_g)
    found = (*of_f.largest, of_f.supremum.lower, of_f.certificate.value, *whole)
    return values | dict(zip(SVD_DISTANCES, found, strict=True))
