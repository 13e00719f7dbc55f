"""Texts as embeddings: by TF-IDF, by a sentence-transformers model, or by an encoder that was trained here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from likeness.networks.pretrained_text import first_line, out_of_reach, quiet
from likeness.progress import tracked
from likeness.protocols import Embedder
from scripts.inputs import load_classifiers, names_a_library_model, names_a_model

if TYPE_CHECKING:
    from likeness.adapters.libraries import LibraryClassifier

TFIDF = "tfidf"
DIM = 128  # of TF-IDF embeddings
ROUNDING = 1e-12
BATCH = 64

Embed = Callable[[Sequence[str]], Tensor]  # texts to [n, d]


def tfidf_embeddings(texts: Sequence[str], dim: int | None = None, seed: int = 0) -> Tensor:
    """Latent semantic analysis of the texts: [n, dim] float32 rows of length 1; by default 128, or as many as exist.

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
    most = min(weights.shape) - 1
    if most < 1:
        raise ValueError("TF-IDF takes at least 2 texts and 2 terms, got {} and {}".format(*weights.shape))
    dim = min(DIM, most) if dim is None else dim
    if not 1 <= dim <= most:
        raise ValueError(
            f"dim must be at least 1 and less than the {weights.shape[0]} texts and their {weights.shape[1]} terms, "
            f"got {dim}"
        )
    svd = TruncatedSVD(dim, algorithm="arpack", random_state=seed)
    projected = torch.from_numpy(svd.fit_transform(weights))
    axes = torch.from_numpy(svd.components_.copy())  # a view that runs backwards, perhaps
    signs = axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()[:, 0]
    lengths = torch.linalg.vector_norm(projected, dim=1, keepdim=True)
    # Texts are of length 1 before they are projected: what is so short is the rounding of nothing.
    return torch.where(lengths > ROUNDING, projected * signs / lengths, 0).float()


def text_encoder(name: str, texts: Sequence[str], dim: int | None, device: torch.device) -> Embed:
    """The encoder of a name: ``tfidf``, fitted on the texts; a run or checkpoint of this project; or a model.

    Raises FileNotFoundError, ImportError or ValueError where there is no such encoder, or it takes no texts.
    """
    if name == TFIDF:
        return tfidf_encoder(texts, dim)
    if dim is not None:
        raise ValueError(f"--dim is the dimension of TF-IDF embeddings, but the encoder is {name}")
    return trained_encoder(name, device) if names_a_model(name) else sentence_transformer(name, device)


def tfidf_encoder(texts: Sequence[str], dim: int | None) -> Embed:
    """TF-IDF and truncated SVD of the texts, for these texts alone."""

    vectors = tfidf_embeddings(texts, dim)
    rows = {text: row for row, text in enumerate(texts)}
    return lambda asked: vectors[[rows[text] for text in asked]]


def trained_encoder(name: str, device: torch.device) -> Embed:
    """The encoder of a run or checkpoint of this project."""
    model = load_embedder(name, device)

    def embed(texts: Sequence[str]) -> Tensor:
        blocks = [list(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        try:
            return torch.cat([embedded(model, block) for block in tracked(blocks, "embedding texts")])
        except (AttributeError, TypeError) as error:
            raise ValueError(f"the encoder {name} takes no texts: {error}") from error

    return embed


class LibraryFeatures:
    """What enters the head of a library's vision classifier, for images as datamodules store them."""

    def __init__(self, name: str, device: torch.device) -> None:
        ((_, model),) = load_classifiers(name)
        self.model = cast("LibraryClassifier", model).to(device)

    def embed(self, x: Tensor) -> Tensor:
        """[N, M], without the constant coordinate of a bias."""
        f = self.model.embed(x)
        return f[:, :-1] if self.model.has_bias else f


def load_embedder(name: str, device: torch.device) -> Embedder:
    """The model of a run, a checkpoint or a member ``RUN#3`` on a device; of siblings the first."""
    from lightning_modules.checkpoints import load_embedders

    if names_a_library_model(name):
        return LibraryFeatures(name, device)
    _, model = load_embedders(name)[0]
    return model.to(device) if isinstance(model, nn.Module) else model


@torch.no_grad()
def embedded(model: Embedder, x: Tensor | list[str]) -> Tensor:
    """The embeddings [B, M] of a batch, on the CPU in float32 or wider."""
    found = model.embed(x)  # type: ignore[arg-type]  # encoders of texts take these
    return (found if found.dtype == torch.float64 else found.float()).cpu()


def sentence_transformer(name: str, device: torch.device) -> Embed:
    """A sentence-transformers model, by its name on the Hugging Face hub or the path of its folder."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ImportError(f'the encoder {name} needs sentence-transformers: pip install -e ".[text]"') from error
    if _is_path(name) and not Path(name).is_dir():
        raise FileNotFoundError(f"there is no encoder {name}: neither tfidf nor a folder")
    away = None if Path(name).is_dir() else out_of_reach(name if "/" in name else f"sentence-transformers/{name}")
    try:
        with quiet():
            model = SentenceTransformer(name, device=str(device), local_files_only=away is not None)
    except Exception as error:  # transformers, its hub and its network each raise their own
        if away is not None:
            raise FileNotFoundError(
                f"there is no encoder {name}: it is no folder and not among the downloaded models, and {away}"
            ) from error
        raise ValueError(f"there is no encoder {name} that can be loaded: {first_line(error)}") from error

    def embed(texts: Sequence[str]) -> Tensor:
        found = model.encode(list(texts), batch_size=BATCH, convert_to_tensor=True, show_progress_bar=len(texts) > 999)
        return found.float().cpu()

    return embed


def _is_path(name: str) -> bool:
    """Names on the hub are ``model`` or ``owner/model``."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith("/")
