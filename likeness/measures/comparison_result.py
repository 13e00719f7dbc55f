"""What a comparison of two softmax models says, field by field."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Certificate:
    """A bound, and whether it says more than what holds of any two models."""

    value: float
    informative: bool


@dataclass(frozen=True, kw_only=True)
class SoftmaxComparison:
    """How alike two softmax models are on the same inputs and labels. Distances are 0 for equivalent models.

    Equivalent are models with f1 = A f2 and g1 = A^-T g2 + v, A invertible: no data tells them apart. What is None is
    undefined, for the reason that ``undefined`` gives under its name. A, B and C stand for
    arXiv 2506.03784, 2603.29488 and 2602.15438.
    """

    # Predictions
    kl_12: float
    """KL(p1 || p2), mean over inputs, nats."""
    kl_21: float
    """KL(p2 || p1), mean over inputs, nats."""
    js: float
    """Jensen-Shannon divergence, mean over inputs, nats; at most log 2."""
    total_variation: float
    """Half the L1 distance, mean over inputs; at most 1."""
    agreement: float
    """Fraction of the inputs on which both models prefer the same label."""
    accuracy_1: float | None = None
    """Fraction of the inputs on which model 1 prefers the given label."""
    accuracy_2: float | None = None
    """Fraction of the inputs on which model 2 prefers the given label."""

    # Likelihood distance (A, Def 4.4)
    d_llv: float | None = None
    """Log-likelihood variance distance: max of term 1, term 2, lambda term 3, lambda term 4, or their sum."""
    term_1: float
    """Label side: largest standard deviation over inputs of a difference of standardised log-probabilities."""
    term_2: float | None = None
    """Input side: the same over labels."""
    term_3: float
    """Label side: largest difference of the standard deviations of log-ratios."""
    term_4: float | None = None
    """Input side: the same over labels."""
    pivot: int
    """Label y0 of the label side."""
    left_out: int
    """Label that the label side leaves out."""
    ties: tuple[tuple[int, int], ...]
    """(pivot, left out) whose term 1 is the same within 1e-6, the chosen one first; at most 64."""
    input_set: tuple[int, ...] | None = None
    """Positions of the inputs x0 (pivot), x1 .. xM of the input side."""

    # Representations
    m_cca_f: float
    """Mean canonical correlation of f over the inputs; 1 also for independent linear maps, hence weaker than d_SVD."""
    m_cca_g: float
    """The same of g over the K labels; with K <= M1 + M2 some correlations are 1 whatever g."""
    m_svd_f: float | None = None
    """1 - max_d_svd_f."""
    m_svd_g: float | None = None
    """1 - d_svd_g."""
    max_d_svd_f: float | None = None
    """Largest 1 - m_SVD of L^T f over label subsets at (pivot, left_out); of those tried where they are too many."""
    max_d_svd_f_upper: float | None = None
    """What no label subset exceeds: equal to max_d_svd_f where all were tried, else the correlation certificate."""
    max_d_svd_f_of_ties: float | None = None
    """Largest max_d_svd_f over the tied choices: the choice is not unique, and d_SVD depends on it."""
    d_svd_g: float | None = None
    """1 - m_SVD of N^T g over the labels, at the input set."""
    d_fg: float | None = None
    """The larger of max_d_svd_f and d_svd_g (A, Def 4.5)."""
    d_fg_upper: float | None = None
    """The larger of max_d_svd_f_upper and d_svd_g."""

    # Bounds on d_fg
    paper_bound: Certificate | None = None
    """2 M d_llv (A, Theorem 4.7)."""
    squared_bound: Certificate | None = None
    """2 d_llv^2. Derived, not in the paper."""
    certificate: Certificate | None = None
    """1 - mean of the M smallest correlations of log-ratios, on max_d_svd_f alone. Derived, not in the paper."""

    # Logit distances (C)
    d_logit: float
    """Root mean square over inputs of the distance of the logits centred over labels."""
    d_logit_normalised: float
    """d_logit^2 over the mean square of model 1's centred logits."""
    d_rep: float
    """Root mean square of f1 - A f2 with A = pinv(W1) W2, W the centred unembeddings."""
    d_rep_mean: float | None = None
    """The same with A = L1^-T L2^T, averaged in squares over pivots and label subsets; heavy-tailed."""
    d_rep_median: float | None = None
    """Median over pivots and label subsets."""
    d_rep_kept: float | None = None
    """Fraction of the pivots and label subsets whose L1 is well conditioned, which the two before are over."""
    d_rep_bound: Certificate
    """On d_rep: d_logit over the smallest singular value of W1."""
    d_rep_mean_bound: float | None = None
    """On d_rep_mean: from the log-ratios of each subset and the smallest singular value of its L1."""
    correlation_deficit: float
    """sum (1 - rho_i^2) lambda_i, at most d_logit^2: canonical correlations of f, variances of model 1's logits."""
    m_cca_bound: Certificate
    """m_cca_f is at least this: 1 - d_logit^2 / (M lambda_M)."""
    d_logit_bound: Certificate
    """On d_logit, from kl_12 and the smallest probability of either model. Constant derived; useless in practice."""

    undefined: Mapping[str, str] = field(default_factory=dict)
    """Why a field is None."""
