"""A real language model against its copies: rounded, pruned, trained on, with noise, and transformed into the same one.

int8 and int4 round each row of the matrices of all layers to the nearest of 2^b - 1 levels; noise adds 0.05 standard
deviations to every matrix, the embedding too; rotated folds the gains of the norms into what reads them and turns the
residual stream, which changes every weight and no logit; gauge leaves the model and takes f A^T and g A^-1 + v.
pruned10 and pruned30 set so many hundredths of each matrix of all layers to 0, those of the smallest magnitude; tuned
has its last blocks trained on texts for a while.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from likeness.adapters.causal_models import read_causal
from likeness.adapters.causal_scorers import CausalModel, TokenScorer
from likeness.checks import require_one_of
from likeness.files.tensors import open_safetensors
from likeness.files.writing import replacing
from likeness.language.comparison import compare_language_models
from likeness.language.token_batches import TokenPositions
from likeness.progress import tracked
from likeness.seeding import generator
from scripts.hubness.files import Source
from scripts.hubness.points import BUILT_IN, texts_of
from scripts.reporting import Row
from scripts.study.language_tuning import prune, tune

COPIES = ("int8", "noise", "int4", "rotated", "gauge", "pruned10", "pruned30", "tuned")
ORIGINAL = "original"
BITS = {"int8": 8, "int4": 4}
PRUNED = {"pruned10": 0.1, "pruned30": 0.3}
NOISE = 0.05  # standard deviations of each matrix
CONDITION = 10.0  # of the gauge
BUDGET = 2048  # rows of term 1
SHOWN = (
    "kl_12",
    "total_variation",
    "agreement",
    "term_1",
    "term_1_lower",
    "d_svd_typical",
    "max_d_svd",
    "certificate",
    "m_cca_f",
    "m_cca_f_of_noise",
    "d_logit_weighted_normalised",
)


@dataclass(frozen=True)
class CopyStudy:
    """What is compared on what."""

    model: str
    texts: str
    tuned_on: str
    copies: tuple[str, ...]
    positions: int
    device: torch.device

    def __post_init__(self) -> None:
        for name in self.copies:
            require_one_of(name, COPIES, "copy")


def measure_copies(study: CopyStudy, out: Path) -> list[Row]:
    """A row for each copy, against the model as it is; embeddings and rows that are in ``out`` are read from there."""
    model: TokenScorer | None = None

    def original() -> TokenScorer:
        nonlocal model
        model = model or read_causal(study.model)
        model.model.to(study.device)
        return model

    first = _kept(study, ORIGINAL, out, original)
    rows: list[Row] = []
    for name in tracked(study.copies, "comparing copies"):
        second = first if name == "gauge" else _kept(study, name, out, original)
        path, about = out / "copies" / f"{name}.json", _about(study, name)
        if not path.is_file():
            with replacing(path) as temporary:
                temporary.write_text(json.dumps({"about": about, "row": _row(name, first, second)}), encoding="utf-8")
        content = json.loads(path.read_text(encoding="utf-8"))
        _require_same(path, content.get("about", {}), about)
        rows.append(content["row"])
    return rows


def _about(study: CopyStudy, name: str) -> dict[str, str]:
    """What a kept file must have been made of."""
    about = {"model": study.model, "texts": study.texts, "positions": str(study.positions)}
    return about | ({"tuned_on": study.tuned_on} if name == "tuned" else {})


def _row(name: str, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Row:
    """What a copy is to the model."""
    f, g = gauge(first["f"], first["g"]) if name == "gauge" else (second["f"], second["g"])
    found = compare_language_models(
        (first["f"], first["g"], first.get("bias")),
        (f, g, second.get("bias")),
        first["next"],
        documents=first["document"],
        ids=first["prefix"],
        budget=BUDGET,
    )
    own: Row = {"copy": name, "nll": found.nll_2, "change of nll": found.nll_2 - found.nll_1}  # type: ignore[operator]
    return own | {"kl_se": found.errors["kl_12"]} | {key: getattr(found, key) for key in SHOWN}


def _kept(study: CopyStudy, name: str, out: Path, original: Callable[[], TokenScorer]) -> dict[str, Tensor]:
    """The tensors of a copy, made or read. Raises ValueError for a file of another model, other texts or positions."""
    from safetensors.torch import save_file

    path, about = out / "copies" / f"{name}.safetensors", _about(study, name)
    if not path.is_file():
        model = original() if name == ORIGINAL else copied(original(), name, study.tuned_on)
        with replacing(path) as temporary:
            save_file({key: x.contiguous() for key, x in _positions(model, study).items()}, temporary, about)
    file = open_safetensors(path)
    _require_same(path, file.metadata() or {}, about)
    return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def _require_same(path: Path, found: Mapping[str, str], about: Mapping[str, str]) -> None:
    for key, value in about.items():
        if found.get(key) != value:
            raise ValueError(f"{path} is of {key} {found.get(key)}, not {value}: choose another --out")


def _positions(model: TokenScorer, study: CopyStudy) -> dict[str, Tensor]:
    positions: TokenPositions = model.positions(texts_of(Source(study.texts)), study.positions)
    if (found := len(positions.next)) < study.positions:
        raise ValueError(f"{study.texts} has {found:,} positions that count, not {study.positions:,}")
    if not isinstance(model, CausalModel):
        raise ValueError(f"{study.model} caps its logits: its copies are not compared by f and g")
    g, bias = model.output_embedding()
    tensors = {name: x.cpu() for name, x in positions._asdict().items()}
    tensors["f"] = tensors["f"][:, : g.shape[1]]
    return tensors | {"g": g.cpu().clone()} | ({} if bias is None else {"bias": bias.cpu()})


def copied(model: TokenScorer, name: str, tuned_on: str = BUILT_IN) -> TokenScorer:
    """A copy of a model, changed as its name says; its head is probed again."""
    module = copy.deepcopy(model.model)
    if name in PRUNED:
        prune(matrices(module, embedding=False), PRUNED[name])
    elif name == "tuned":
        tune(read_causal(module, tokenizer=model.tokenizer), texts_of(Source(tuned_on)))
    elif name in BITS:
        for matrix in matrices(module, embedding=False):
            matrix.copy_(rounded(matrix, BITS[name]))
    elif name == "noise":
        random = generator(0)
        for matrix in matrices(module, embedding=True):
            noise = torch.empty(matrix.shape).normal_(generator=random)
            matrix.add_(NOISE * matrix.std() * noise.to(matrix))
    else:
        rotate(module)
    return read_causal(module, tokenizer=model.tokenizer)


def matrices(module: nn.Module, embedding: bool) -> Iterator[Tensor]:
    """Weights of two dimensions, each once; those of the embeddings, in and out, only where asked."""
    own: Any = module
    outer = {id(x.weight) for x in (own.get_input_embeddings(), own.get_output_embeddings())}
    for parameter in module.parameters():
        if parameter.ndim == 2 and (embedding or id(parameter) not in outer):
            yield parameter.detach()


def rounded(matrix: Tensor, bits: int) -> Tensor:
    """Each row [M] at the nearest of its 2^bits - 1 levels, symmetric about 0, the largest entry at the end."""
    levels = 2 ** (bits - 1) - 1
    step = matrix.abs().amax(1, keepdim=True).clamp(min=torch.finfo(matrix.dtype).tiny) / levels
    return (matrix / step).round() * step


@torch.no_grad()
def rotate(module: nn.Module) -> None:
    """Make a model of Llama's kind another one with the same logits, in place.

    The gain of each RMSNorm goes into the matrices that read it, and the residual stream is turned by an orthogonal Q:
    readers W become W Q, writers Q^T W. A tied head is untied first. Raises ValueError for other kinds.
    """
    if type(module).__name__ != "LlamaForCausalLM":
        raise ValueError(f"rotated copies are made of a LlamaForCausalLM, and this is a {type(module).__name__}")
    own: Any = module
    body, head = own.model, own.lm_head
    if head.weight is body.embed_tokens.weight:
        head.weight = nn.Parameter(head.weight.clone(), requires_grad=False)
        own.config.tie_word_embeddings = False
    width = head.weight.shape[1]
    q = torch.linalg.qr(torch.empty(width, width, dtype=torch.float64).normal_(generator=generator(0, width))).Q

    def read(norm: Any, *layers: Any) -> None:
        for layer in layers:
            layer.weight.copy_((layer.weight.double() * norm.weight.double()) @ q.to(layer.weight.device))
        norm.weight.fill_(1.0)

    body.embed_tokens.weight.copy_(body.embed_tokens.weight.double() @ q.to(head.weight.device))
    for layer in body.layers:
        attention, mlp = layer.self_attn, layer.mlp
        read(layer.input_layernorm, attention.q_proj, attention.k_proj, attention.v_proj)
        read(layer.post_attention_layernorm, mlp.gate_proj, mlp.up_proj)
        for writer in (attention.o_proj, mlp.down_proj):
            writer.weight.copy_(q.to(writer.weight.device).T @ writer.weight.double())
            if writer.bias is not None:
                writer.bias.copy_(q.to(writer.bias.device).T @ writer.bias.double())
    read(body.norm, head)


def gauge(f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """f A^T and g A^-1 + v, in float32, for an A of condition 10: the same probabilities."""
    width, random = g.shape[1], generator(1, g.shape[1])
    u, v = (torch.linalg.qr(torch.empty(width, width).double().normal_(generator=random)).Q for _ in range(2))
    scales = torch.logspace(0, torch.tensor(CONDITION).log10().item(), width, dtype=torch.float64)
    shift = g.double().std() * torch.empty(width, dtype=torch.float64).normal_(generator=random)
    return (f.double() @ ((u * scales) @ v.T).T).float(), (g.double() @ ((v / scales) @ u.T) + shift).float()
