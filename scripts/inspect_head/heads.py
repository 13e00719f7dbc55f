"""The head of a model on disk: which of its matrices maps features to logits, its bias, its scale and its labels.

Models of others are read as what their files and ``config.json`` say, and none of their code is run. The names are
those of the models in transformers and torchvision. What cannot be told for certain is refused with the names of the
tensors in question, one of which ``--key`` may choose.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from likeness.adapters.causal_models import read_causal
from likeness.adapters.libraries import LibraryClassifier, ModelName
from likeness.files.tensors import read_numpy
from likeness.label_geometry.similarity import LabelRows, row_blocks
from likeness.networks.pretrained_text import out_of_reach
from likeness.protocols import SoftmaxModel
from scripts.inputs import load_classifiers, names_a_library_model, names_a_model
from scripts.inspect_head.files import (
    SUFFIXES,
    NumpyRows,
    SafetensorRows,
    ScaledRows,
    TensorFiles,
    read_json,
)
from scripts.inspect_head.labels import Labels, names_of_classes, names_of_tokens, read_labels, read_vocabulary

_WRAPPED = r"(?:(?:model|module|net|network|backbone|base_model|_orig_mod)\.)*"
# A language model's matrix of output embeddings; behind a dot, or at the beginning of the name.
_OUTPUT = re.compile(
    r"(?:.*\.)?(?:lm_head|lm_head\.decoder|lm_head\.out_proj|embed_out|output_layer|output_projection|proj_out|lm_loss"
    r"|cls\.predictions\.decoder|predictions\.decoder|vocab_projector|generator_lm_head|pred_layer\.proj)\.weight"
    rf"|(?:(?:language_model|text_model)\.)?{_WRAPPED}(?:output|decoder)\.weight"
)
# The input embeddings, which are the head where the two are tied.
_EMBEDDING = re.compile(
    r"(?:.*\.)?(?:embed_tokens|wte|embed_in|word_embeddings|word_embedding|tok_embeddings|tokens_embed|embeddings"
    r"|embedding|shared)\.weight"
)
_CLASSIFIER = re.compile(
    rf"{_WRAPPED}(?:classifier|score|fc|head|heads\.head|head\.fc|classifier\.out_proj|classification_head\.out_proj|logits_proj|last_linear)\.weight"
)
_LAST_OF_SEQUENCE = re.compile(rf"{_WRAPPED}classifier\.(\d+)\.weight")
_BIAS = re.compile(
    r"(?:.*\.)?(?:lm_head|lm_head\.decoder|embed_out|lm_loss|cls\.predictions|cls\.predictions\.decoder|predictions"
    r"|predictions\.decoder|vocab_projector|generator_lm_head|pred_layer\.proj)\.bias|decoder\.bias|final_logits_bias"
)
# Parts of a model that do not write text: towers of other modalities, encoders, and heads for later tokens.
_ELSEWHERE = re.compile(r"vision|visual|image|audio|speech|^encoder$|^layers$|^h$|^mtp$|draft")
_CLASSIFIES = re.compile(r"For(?:Sequence|Token|Image|Audio|Video)\w*Classification")
_OF_A_FOLDER = re.compile(r"(?:model|pytorch_model)\b.*\.(?:safetensors|bin)")  # beside its config.json
_SCALES = ("weight_scale", "weight_scale_inv")  # both multiply, whatever the second is called
_MULTIPLYING = ("fp8", "fbgemm_fp8", "compressed-tensors")  # quant_method
_IGNORED = ("bias", "weight", "input_scale")
_TOWER_OF_TEXT = ("text_config", "llm_config", "language_config", "decoder", "thinker_config")
_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
_MULTIPLIERS = ("logit_scale", "lm_head_multiplier")
_DIVISORS = ("logits_scaling",)
_T5 = ("t5", "umt5", "longt5", "switch_transformers")  # divide by sqrt(d_model) where tied, if nothing says it


@dataclass(frozen=True)
class Head:
    """Unembeddings without their biases, and what is known of them."""

    rows: LabelRows  # [K, M]
    bias: Tensor | None  # [K]
    labels: Labels
    source: str
    dtype: str
    key: str | None = None  # of the matrix in its file
    tied: bool = False  # the input embeddings serve as the head
    cap: float | None = None  # c, where the logits are c tanh(f . g / c)
    notes: tuple[str, ...] = ()
    model: SoftmaxModel | None = None  # of this project, whose f can be asked


def open_head(path: str, key: str | None = None, labels: Path | None = None) -> Head:
    """The head of a run, a checkpoint, a file of weights, a model directory or a name; raises what is wrong with it.

    Of a run of siblings ``PATH#3`` is member 3, and ``PATH`` the first.
    """
    if key is None and _names_a_language_model(path):
        head = _of_language_model(path)
    elif key is None and names_a_model(path):
        head = _of_model(path)
    else:
        head = read_head(Path(path), key)
    if labels is None:
        return head
    return replace(head, labels=Labels(head.labels.count, read_labels(labels, head.labels.count)))


def find_pair(head: Head, first: str, second: str) -> tuple[int, int]:
    """Two labels by name; raises ValueError if one is unknown or they are the same."""
    pair = head.labels.find(first), head.labels.find(second)
    if pair[0] == pair[1]:
        raise ValueError(f"--pair takes two labels, and {first!r} and {second!r} are the same")
    return pair


def _names_a_language_model(path: str) -> bool:
    """Whether this is a .gguf file, or a name of Hugging Face that is not of a classifier.

    What cannot be read is one, so that reading it says why.
    """
    if path.endswith(".gguf"):
        return True
    name = ModelName.of(path) if names_a_library_model(path) else None
    if name is None or name.library != "hf" or name.options:
        return False
    try:
        from transformers import AutoConfig

        local = {"local_files_only": Path(name.name).is_dir() or out_of_reach(name.name) is not None}
        config = AutoConfig.from_pretrained(name.name, trust_remote_code=False, **local)
    except Exception:  # the library and its hub raise their own
        return True
    return not any(_CLASSIFIES.search(str(architecture)) for architecture in config.architectures or ())


def _of_language_model(path: str) -> Head:
    """The output embedding of a causal language model as its library reads it, with its tokens as labels."""
    model = read_causal(path, rows="all")
    g, bias = model.output_embedding()
    facts, tokens = model.facts, None if model.tokenizer is None else model.tokenizer.get_vocab()
    labels = Labels(len(g), None if tokens is None else names_of_tokens(tokens, len(g)))
    notes = () if facts.scale == 1 else (_scale_note(facts.scale, "by its logits"),)
    return Head(g, bias, labels, path, f"{_name(g.dtype)} as read", None, facts.tied, facts.soft_cap, notes)


def _scale_note(scale: float, source: str) -> str:
    return f"logits are f . g with f = {scale:.6g} times the last hidden state, {source}"


@torch.no_grad()
def _of_model(path: str) -> Head:
    models = load_classifiers(path)
    name, model = models[0]
    g, bias = model.unembeddings().detach(), None
    if _appends_a_constant(model):
        g, bias = g[:, :-1], g[:, -1]
    source = name if len(models) == 1 else f"{name}, the first of {len(models)} members"
    return Head(g, bias, Labels(len(g)), source, _name(g.dtype), model=model)


def _appends_a_constant(model: SoftmaxModel) -> bool:
    """Whether f's last coordinate is the constant 1 of a head with a bias."""
    if isinstance(model, LibraryClassifier):
        return model.has_bias
    shape = getattr(getattr(model, "network", None), "input_shape", None)
    if shape is None:
        return False
    f = model.embed(torch.stack([torch.zeros(*shape), torch.ones(*shape)]))
    return f.shape[1] > 1 and bool((f[:, -1] == 1).all())


def read_head(path: Path, key: str | None = None) -> Head:
    """The head in a file of weights or a Hugging Face model directory; ``key`` names it where it cannot be told.

    Raises FileNotFoundError, and ValueError naming the file, the tensors and their shapes where there is no such
    matrix, more than one that it could be, or one that is stored in a way that is not read here.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint or file of weights {path}")
    if path.suffix == ".npy":
        if key is not None:
            raise ValueError(f"--key {key}: {path} holds one matrix, without a name")
        array = NumpyRows(read_numpy(path))
        _require_head(str(path), array.shape, None)
        return Head(array, None, Labels(array.shape[0]), str(path), array.dtype)
    if not path.is_dir() and path.suffix not in SUFFIXES:
        raise ValueError(f"{path} is none of {', '.join(SUFFIXES)}, nor a model directory")
    tensors = TensorFiles.of_folder(path) if path.is_dir() else TensorFiles(path)
    folder = path if path.is_dir() else path.parent if _OF_A_FOLDER.fullmatch(path.name) else None
    config = ModelConfig({}) if folder is None else ModelConfig.of(folder)
    found = _named(tensors, key, config) if key is not None else _find(tensors, config)
    bias = _bias_of(found, tensors)
    _require_head(found.key or str(path), tensors[found.key].shape, bias)
    rows, notes = _dequantised(found.key, tensors, config)
    cap, scale = config.cap(), config.scale(found.tied)
    if found.classifies:  # these are of a language model's logits
        cap, scale = None, 1.0
    if scale != 1:
        notes.append(_scale_note(scale, "by config.json"))
    return Head(
        rows,
        bias,
        _labels(folder, tensors[found.key].shape[0], found, config),
        f"{path}, {found.key}" if found.key else str(path),
        _name(tensors[found.key].dtype),
        found.key or None,
        found.tied,
        cap,
        (*found.notes, *notes),
    )


def _require_head(name: str, shape: Sequence[int], bias: Tensor | None) -> None:
    if len(shape) != 2 or shape[0] < 2 or shape[1] < 1:
        raise ValueError(f"a head is a matrix of at least two label vectors, but {name} is {list(shape)}")
    if bias is not None and len(bias) != shape[0]:
        raise ValueError(f"the head {name} is {list(shape)}, but the bias beside it is {list(bias.shape)}")


def _labels(folder: Path | None, count: int, found: _Found, config: ModelConfig) -> Labels:
    if found.classifies:
        return Labels(count, names_of_classes(config.content, count))
    return Labels(count, None if folder is None else read_vocabulary(folder, count))


@dataclass(frozen=True)
class _Found:
    """The matrix that is the head, and how that is known."""

    key: str
    tied: bool = False
    classifies: bool = False
    notes: tuple[str, ...] = ()


def _named(tensors: TensorFiles, key: str, config: ModelConfig) -> _Found:
    if key not in tensors:
        raise ValueError(f"{tensors.source} has no key {key!r}; its matrices are {_listed(_matrices(tensors))}")
    classifies = bool(_CLASSIFIER.fullmatch(key) or _LAST_OF_SEQUENCE.fullmatch(key))
    return _Found(key, bool(_EMBEDDING.fullmatch(key)) and config.tied() is not False, classifies)


def _find(tensors: TensorFiles, config: ModelConfig) -> _Found:
    """The head by the names of the tensors and by whether ``config.json`` ties it to the input embeddings."""
    outputs = tensors.matrices(_matching(_OUTPUT, tensors))
    classifiers = tensors.matrices(_classifiers(tensors))
    if config.classifies() or (classifiers and not outputs):
        return _Found(_only(classifiers, tensors), classifies=True)
    output = _only([*outputs, *classifiers], tensors) if outputs else None
    embeddings = tensors.matrices(_embeddings(tensors))
    tied = config.tied()
    if output is None and tied is not True:
        _refuse_packed(tensors)
    if output is not None and (tied is False or not embeddings):
        return _Found(output, bool(tied))
    if embeddings and output is None:
        if tied is False:
            raise ValueError(
                f"{tensors.source} has no head: config.json says that it is not tied to the input embeddings "
                f"{embeddings[0]}, and no other matrix is one"
            )
        return _Found(_only(embeddings, tensors), tied=True)
    if output is not None:
        return _tied_or_not(output, embeddings, tensors, tied)
    matrices = _matrices(tensors)
    if len(matrices) != 1:
        raise ValueError(f"name the head in {tensors.source} with --key: its matrices are {_listed(matrices)}")
    return _Found(matrices[0])


def _tied_or_not(output: str, embeddings: list[str], tensors: TensorFiles, tied: bool | None) -> _Found:
    """Of a file that holds both matrices: the input embeddings if config.json ties the two, else the output's."""
    if not tied:
        return _Found(output, any(_equal(tensors[output], tensors[embedding]) for embedding in embeddings))
    embedding = _only(embeddings, tensors)
    if _equal(tensors[output], tensors[embedding]):
        return _Found(embedding, tied=True)
    note = f"config.json ties the head to {embedding}; {output} is in the file too, differs, and is left aside"
    return _Found(embedding, tied=True, notes=(note,))


def _matching(pattern: re.Pattern[str], tensors: TensorFiles) -> list[str]:
    """The names of this form that do not stand in another part of the model."""
    found = [name for name in tensors.names if pattern.fullmatch(name)]
    return [name for name in found if not any(_ELSEWHERE.search(part) for part in name.split(".")[:-2])]


def _embeddings(tensors: TensorFiles) -> list[str]:
    """Input embeddings that can be tied to a head, those that encoder and decoder share before the decoder's.

    Encoders of text have word embeddings too, which are a head only beside the bias of one.
    """
    found = _matching(_EMBEDDING, tensors)
    shared = [name for name in found if name.endswith("shared.weight")]
    if shared:
        return shared
    if not any(_BIAS.fullmatch(name) for name in tensors.names):
        found = [name for name in found if not re.search(r"embeddings\.(word|tok|position)_embeddings", name)]
    return found


def _classifiers(tensors: TensorFiles) -> list[str]:
    sequence = [match for name in tensors.names if (match := _LAST_OF_SEQUENCE.fullmatch(name))]
    last = max(sequence, key=lambda match: int(match[1]), default=None)
    return [*_matching(_CLASSIFIER, tensors), *([last[0]] if last else [])]


def _only(names: Sequence[str], tensors: TensorFiles) -> str:
    if len(names) == 1:
        return names[0]
    which = f"it could be {_listed(names)}" if names else f"its matrices are {_listed(_matrices(tensors))}"
    raise ValueError(f"name the head in {tensors.source} with --key: {which}")


def _refuse_packed(tensors: TensorFiles) -> None:
    """Raise ValueError for a head whose weights are there, but in another form than a matrix called weight."""
    for name in tensors.names:
        stem, _, rest = name.rpartition(".")
        whole = stem.removesuffix(".base_layer")
        if rest != "bias" and any(_OUTPUT.fullmatch(f"{part}.weight") for part in (stem, whole)):
            beside = [other.removeprefix(f"{stem}.") for other in tensors.names if other.startswith(f"{stem}.")]
            raise ValueError(f"the head {stem} of {tensors.source} is stored as {_listed(beside)}, not as a matrix")


def _equal(first: Tensor | SafetensorRows, second: Tensor | SafetensorRows) -> bool:
    if list(first.shape) != list(second.shape) or first.dtype != second.dtype:
        return False
    return all(torch.equal(first[block], second[block]) for block in row_blocks(first.shape))


def _matrices(tensors: TensorFiles) -> list[str]:
    return tensors.matrices(tensors.names)


def _bias_of(found: _Found, tensors: TensorFiles) -> Tensor | None:
    """The bias beside the matrix, or the one that the model's head has under another name, [K]."""
    key = found.key
    names = [key.removesuffix("weight") + "bias"] if key.endswith("weight") and not found.tied else []
    if found.tied or _OUTPUT.fullmatch(key):
        names += [name for name in tensors.names if _BIAS.fullmatch(name)]
    for name in names:
        if name in tensors:
            return tensors.whole(name).flatten()
    return None


def _dequantised(key: str, tensors: TensorFiles, config: ModelConfig) -> tuple[LabelRows, list[str]]:
    """The rows as numbers; raises ValueError naming the tensors of a quantisation that is not read here."""
    rows = tensors[key]
    stem = key.removesuffix("weight") if key.endswith("weight") else None
    beside = [] if stem is None else [name.removeprefix(stem) for name in tensors.names if name.startswith(stem)]
    beside = [name for name in beside if name not in _IGNORED and ("." not in name or name.startswith("weight."))]
    stored = _name(rows.dtype)
    plain = rows.dtype.is_floating_point and not stored.startswith(("float4", "float8_e8m0"))
    head = f"the head {key} of {tensors.source}"
    if not beside:
        if not plain:
            raise ValueError(f"{head} is stored as {stored}, not as real numbers")
        return rows, []
    if len(beside) > 1 or beside[0] not in _SCALES or not (plain or rows.dtype == torch.int8):
        raise ValueError(f"{head} is quantised in a way that is not read: {stored} with {_listed(beside)}")
    if config.quantisation("quant_method") not in _MULTIPLYING:
        raise ValueError(f"{head} is quantised, {stored} with {beside[0]}, and no config.json says how to read it")
    scale = tensors.whole(f"{stem}{beside[0]}")
    block = _block(rows.shape, scale, config.quantisation("weight_block_size"))
    sizes = f"{list(rows.shape)} with {beside[0]} {list(scale.shape)} of {_name(scale.dtype)}"
    if block is None:
        raise ValueError(f"{head} is quantised in a way that is not read: {stored} {sizes}")
    scale = scale.reshape(-(-rows.shape[0] // block[0]), -(-rows.shape[1] // block[1]))
    return ScaledRows(rows, scale, block), [f"the label vectors are {stored} {sizes}, multiplied"]


def _block(shape: Sequence[int], scale: Tensor, stated: Sequence[int] | None) -> tuple[int, int] | None:
    """How many rows and columns share an entry of the scale: all, one, or a block of config.json's; None if unclear."""
    sizes = (1, 1) if scale.numel() == 1 else tuple(scale.shape) + (1,) * (2 - scale.ndim)
    if not scale.dtype.is_floating_point or scale.element_size() < 2 or len(sizes) != 2:
        return None
    if stated is not None and sizes == (-(-shape[0] // stated[0]), -(-shape[1] // stated[1])):
        return stated[0], stated[1]
    if not all(parts in (1, size) for parts, size in zip(sizes, shape, strict=True)):
        return None
    return tuple(size if parts == 1 else 1 for parts, size in zip(sizes, shape, strict=True))  # type: ignore[return-value]


@dataclass(frozen=True)
class ModelConfig:
    """What ``config.json`` says, with the defaults of transformers where it is installed and knows the model."""

    content: dict[str, Any]
    library: Any = None

    @classmethod
    def of(cls, folder: Path) -> ModelConfig:
        """The configuration in a folder, empty where it has none; raises ValueError for a file that is no JSON."""
        path = folder / "config.json"
        content = read_json(path) if path.is_file() else {}
        if not isinstance(content, dict):
            raise ValueError(f"{path} is no configuration of a model: it holds a {type(content).__name__}")
        try:
            from transformers import CONFIG_MAPPING

            return cls(content, CONFIG_MAPPING[content["model_type"]].from_dict(content))
        except Exception:  # not installed, an unknown model, or one that its class refuses: the file alone speaks
            return cls(content)

    def setting(self, name: str) -> Any:
        """A setting of the whole or of its part for text, by the file before the library's defaults; else None."""
        parts = [self.content, *(part for name in _TOWER_OF_TEXT if isinstance(part := self.content.get(name), dict))]
        for part in parts:
            if part.get(name) is not None:
                return part[name]
        if self.library is None:
            return None
        whole = getattr(self.library, name, None)
        return getattr(self.library.get_text_config(decoder=True), name, None) if whole is None else whole

    def tied(self) -> bool | None:
        """Whether the head is the input embeddings; None where nothing says."""
        tied = self.setting("tie_word_embeddings")
        return None if tied is None else bool(tied)

    def classifies(self) -> bool:
        """Whether the model is one that puts examples or tokens into classes."""
        return any(_CLASSIFIES.search(str(name)) for name in self.content.get("architectures") or ())

    def quantisation(self, name: str) -> Any:
        """A setting of the quantisation that config.json names."""
        settings = self.content.get("quantization_config")
        return settings.get(name) if isinstance(settings, dict) else None

    def cap(self) -> float | None:
        """c, where the logits are c tanh(f . g / c)."""
        caps = [float(value) for name in _CAPS if _is_number(value := self.setting(name))]
        return caps[0] if caps else None

    def scale(self, tied: bool) -> float:
        """What f is multiplied by besides: so the labels' vectors stay what the file holds."""
        scale = math.prod(float(value) for name in _MULTIPLIERS if _is_number(value := self.setting(name)))
        scale /= math.prod(float(value) for name in _DIVISORS if _is_number(value := self.setting(name)))
        if _is_number(base := self.setting("dim_model_base")):  # MiniCPM
            scale *= base / self.setting("hidden_size")
        scales_outputs = self.setting("scale_decoder_outputs")
        if scales_outputs is None:
            scales_outputs = tied and self.content.get("model_type") in _T5
        if scales_outputs:
            scale *= float(self.setting("d_model")) ** -0.5
        return scale


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value not in (0,)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return (", ".join(names[:12]) or "none") + more
