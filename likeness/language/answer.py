"""What a comparison of two language models says: its numbers, tables, figure and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True, kw_only=True)
class LanguageComparison:
    """How alike two language models are at the same positions. What is None is undefined, as ``undefined`` says.

    As text, and in a notebook, it is a table that says of each number whether it is exact, found or an estimate.

    Example:
        >>> import torch
        >>> from likeness.language.comparison import compare_language_models
        >>> generator = torch.manual_seed(0)
        >>> f, g = torch.randn(60, 3, generator=generator).double(), torch.randn(8, 3, generator=generator).double()
        >>> found = compare_language_models((f, g), (f, g.flip(0)), torch.arange(60) % 8)
        >>> kinds = {row["quantity"]: row["kind"] for row in found.rows()}
        >>> kinds["kl_12"], kinds["term_1"], kinds["max_d_svd"]
        ('mean', 'exact', 'found')

    With kept labels T every number is of p(y | x, y in T), but for the masses and ``kl_*_with_rest``.
    """

    positions: int
    documents: int
    """0 where they were not said."""
    labels: int
    """V, or how many are kept."""
    ranks: tuple[int, int]
    """How many dimensions f1 and f2 span: M of every measure; a final LayerNorm makes it one less than the width."""
    equal_labels: tuple[tuple[int, ...], ...]
    """Groups of tokens whose g are equal in both models; label searches look at the first of each."""

    # Predictions, means over positions
    nll_1: float | None
    """Cross-entropy of the next token, nats."""
    nll_2: float | None
    perplexity_1: float | None
    perplexity_2: float | None
    accuracy_1: float | None
    accuracy_2: float | None
    kl_12: float
    """KL(p1 || p2), nats."""
    kl_21: float
    js: float
    total_variation: float
    agreement: float
    """Share of the positions where both models prefer the same token."""
    variance_12: float
    """Var of l1 - l2 under p1: 2 KL up to third order."""
    variance_21: float
    entropy_1: float
    entropy_2: float
    collision_1: float
    """sum p^2."""
    collision_2: float
    mass_1: float
    """p(y in T)."""
    mass_2: float
    log_mass_1: float
    """E log p(y in T): what the cross-entropy falls by when the other labels are left out."""
    log_mass_2: float
    kl_12_with_rest: float
    """KL of the labels of T and one event for all others: at most that of the whole distributions."""
    kl_21_with_rest: float

    # Labels
    term_1: float | None = None
    """The smallest term 1 of d_LLV that was found."""
    term_1_lower: float | None = None
    """What no choice of labels is under: equal to term_1 unless the budget cut the search short."""
    term_1_rows: int | None = None
    """Pivots whose row was computed."""
    pivot: int | None = None
    left_out: int | None = None
    term_3: float | None = None
    d_svd_typical: float | None = None
    """d_SVD of random label subsets of min(M, M') labels at the pivot, mean."""
    d_svd_typical_deviation: float | None = None
    d_svd_frequent: float | None = None
    """The same of label subsets drawn by frequency."""
    d_svd_frequent_deviation: float | None = None
    max_d_svd: float | None = None
    """The largest that was found: of these subsets, the most frequent labels, and those that correlate least."""
    certificate: float | None = None
    """What no label subset exceeds."""

    # Inputs
    term_2: float | None = None
    """The smallest term 2 among the inputs that were kept, min(M, M') and a pivot: at least that of all inputs."""
    term_4: float | None = None
    inputs: int = 0
    """How many were kept."""

    # Logits and representations
    d_logit: float | None = None
    d_logit_normalised: float | None = None
    """d_logit^2 over the mean square of model 1's centred logits."""
    d_logit_weighted: float | None = None
    """With labels weighted by frequency among the next tokens, or as they were given: the root of E Var_w(l1 - l2)."""
    d_logit_weighted_normalised: float | None = None
    """Its square over the same of model 1 alone."""
    d_rep_12: float | None = None
    d_rep_21: float | None = None
    m_cca_f: float | None = None
    m_cca_f_of_noise: float | None = None
    """What unrelated embeddings of these sizes score; up to 10 M positions it is not small."""
    m_cca_g: float | None = None
    linear_cka_f: float | None = None

    bits_per_byte_1: float | None = None
    """Of whole texts, bits for each of their bytes, where vocabularies differ: the one likelihood that compares."""
    bits_per_byte_2: float | None = None

    errors: Mapping[str, float] = field(default_factory=dict)
    """Standard errors, with documents as the units: of means, and by the jackknife of some functions of moments."""
    groups: int = 0
    """Of documents in that jackknife; 0 for none."""
    undefined: Mapping[str, str] = field(default_factory=dict)
    """Why a field is None."""
    names: tuple[str, str] = ("1", "2")
    data: str = "the positions"
    """What they are of, for titles."""
    prefix: str = ""
    """What stood before each text."""
    tokens: Mapping[int, str] = field(default_factory=dict)
    """The texts of the tokens that the fields name by their numbers."""
    notes: tuple[str, ...] = ()
    """What has to be known of these numbers beside them."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        mappings = {name: dict(getattr(self, name)) for name in ("errors", "undefined", "tokens")}
        return {**asdict(self), **mappings}

    def rows(self) -> list[dict[str, Any]]:
        """A row for each quantity: its value, bounds, standard error, kind, unit, and which way models are alike."""
        from likeness.comparisons.language_tables import rows

        return rows(self)

    def to_frame(self) -> DataFrame:
        """A pandas DataFrame of :meth:`rows`. Raises ImportError where pandas is not installed."""
        from pandas import DataFrame

        return DataFrame(self.rows())

    def plot(self) -> Figure:
        """Distances with their bounds, and likenesses beside what unrelated models would score."""
        from likeness.figures.language import comparison_figure

        return comparison_figure(self)

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``comparison.{json,csv,png,pdf}`` and a page, ``index.html``; answers what was written."""
        from likeness.comparisons.language_tables import save
        from likeness.pages.comparison import table, write_comparison

        folder = Path(folder).expanduser()
        written = save(self, folder)
        about = f"{self.positions:,} positions of {self.data}"
        quantities = table("quantities", "Quantities", self.rows())
        return [*written, *write_comparison(folder, " and ".join(self.names), about, [quantities], written[-2:])]

    def __str__(self) -> str:
        from likeness.comparisons.language_tables import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from likeness.comparisons.language_tables import as_html

        return as_html(self)
