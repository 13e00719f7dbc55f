"""Every pairwise measure by name, with what a callback, a table and a figure need to know of it.

A new measure is one pure function and one line here. Its keys are ``similarity/<name>/{mean,min,max}``.
"""

from collections.abc import Iterable
from functools import partial

from likeness.measures.distribution import agreement_sum, jensen_shannon, kl_sum, pairwise_sum
from likeness.measures.kernel_alignment import linear_cka_f
from likeness.measures.kinds import Measure, OfModels, OfModelsAndInputs, OfMoments, SampleMean
from likeness.measures.peers import PEERS
from likeness.measures.predictions import total_variation_sum
from likeness.measures.representation import m_cca_f, m_cca_g

LOG_2 = 0.6931471805599453

MEASURES: dict[str, Measure] = {
    "kl": SampleMean("KL(row || column), nats", False, None, False, kl_sum),
    "js": SampleMean("Jensen-Shannon divergence, nats", False, LOG_2, True, partial(pairwise_sum, jensen_shannon)),
    "tv": SampleMean("total variation distance", False, 1.0, True, total_variation_sum),
    "agreement": SampleMean("agreement of the likeliest labels", True, 1.0, True, agreement_sum),
    "m_cca_f": OfMoments("m_CCA of the embeddings f", True, 1.0, True, m_cca_f, spans="samples"),
    "m_cca_g": OfMoments("m_CCA of the unembeddings g", True, 1.0, True, m_cca_g, spans="labels"),
    "d_llv": OfModelsAndInputs("d_LLV", False, None, True, "d_llv"),
    "term_1": OfModels("d_LLV, term 1 (labels)", False, None, True, "term_1"),
    "term_2": OfModelsAndInputs("d_LLV, term 2 (inputs)", False, None, True, "term_2"),
    "term_3": OfModels("d_LLV, term 3 (labels)", False, None, True, "term_3"),
    "term_4": OfModelsAndInputs("d_LLV, term 4 (inputs)", False, None, True, "term_4"),
    "max_d_svd_f": OfModels("largest d_SVD of the embeddings f", False, 1.0, True, "max_d_svd_f"),
    "d_svd_g": OfModelsAndInputs("d_SVD of the unembeddings g", False, 1.0, True, "d_svd_g"),
    "d_fg": OfModelsAndInputs("d_{f,g}", False, 1.0, True, "d_fg"),
    "d_logit": OfModels("d_logit", False, None, True, "d_logit"),
    "d_logit_normalised": OfModels("d_logit^2 / E|u_row|^2", False, None, False, "d_logit_normalised"),
    "d_rep": OfModels("d_rep (row from column)", False, None, False, "d_rep"),
    "linear_cka_f": OfMoments("linear CKA of the embeddings f, streamed", True, 1.0, True, linear_cka_f),
    **PEERS,
}

FAMILIES = {
    "m_cca": ("m_cca_f", "m_cca_g"),
    "likelihood": ("d_llv", "term_1", "term_2", "max_d_svd_f", "d_svd_g", "d_fg"),
    "logit": ("d_logit", "d_logit_normalised", "d_rep"),
    "peers": tuple(PEERS),
}


def select(names: Iterable[str]) -> dict[str, Measure]:
    """The measures of these names, in their order; the name of a family stands for all its members.

    Raises ValueError for an unknown name, listing the known ones.
    """
    members = [member for name in names for member in FAMILIES.get(name, (name,))]
    for name in members:
        if name not in MEASURES:
            raise ValueError(f"unknown measure {name!r}: the known ones are {', '.join([*MEASURES, *FAMILIES])}")
    return {name: MEASURES[name] for name in members}
