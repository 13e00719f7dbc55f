"""Every measure between all pairs of P softmax models at once.

Between two models alone, :func:`likeness.measures.softmax_comparison.compare_softmax_models` tells more.
"""

from collections.abc import Sequence

from torch import Tensor

from likeness.measures.comparison_options import ComparisonOptions
from likeness.measures.pairwise_distances import PairwiseDistances
from likeness.measures.softmax_models import SoftmaxModels
from likeness.measures.threads import threads_for


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
        models, predicted = SoftmaxModels.evaluated(embeddings, unembeddings, names)
        divergences = {
            "kl": predicted.kl,
            "js": predicted.js,
            "total_variation": predicted.total_variation,
            "agreement": predicted.agreement,
        }
        return divergences | dict(PairwiseDistances(models, options))
