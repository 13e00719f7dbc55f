"""Embeddings of texts by what words they contain: no model, no download."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def tfidf_embeddings(texts: Sequence[str], dim: int = 128, seed: int = 0) -> Tensor:
    """Latent semantic analysis of the texts: [n, dim] float32 rows of length 1.

    Words are weighted by (1 + log tf) * idf, and the n x terms matrix is projected on its ``dim`` leading right
    singular vectors, each with its largest entry positive. ``seed`` is where the iterative solver starts; it converges
    to machine precision, so another one changes rounding alone. A text without a word of two letters gives a row of
    zeros. Raises ValueError where there are no words, or not more texts and more terms than ``dim``.

    Deerwester et al. 1990.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True)
    if not any(map(vectorizer.build_analyzer(), texts)):
        raise ValueError(f"none of the {len(texts)} texts has a word of two letters")
    weights = vectorizer.fit_transform(texts)
    if not 1 <= dim < min(weights.shape):
        raise ValueError(
            f"dim must be at least 1 and less than the {weights.shape[0]} texts and their {weights.shape[1]} terms, "
            f"got {dim}"
        )
    svd = TruncatedSVD(dim, algorithm="arpack", random_state=seed)
    projected = torch.from_numpy(svd.fit_transform(weights))
    axes = torch.from_numpy(svd.components_.copy())  # a view that runs backwards, perhaps
    signs = axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()[:, 0]
    return F.normalize(projected * signs, dim=1).float()
