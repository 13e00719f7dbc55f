"""docs/subjects/measures.md against the functions: what its table says they see, its names, its pictures."""

import copy
import re
import runpy
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from likeness.comparisons.bounds import bounds_on
from likeness.similarity.catalogue import FAMILIES, MEASURES, REPRESENTATION_MEASURES
from likeness.similarity.comparison import compare_softmax_models
from likeness.similarity.representations.cca import m_cca
from tests.docs.reader import blocks, run_python
from tests.likeness.similarity.paired_samples import generator, invertible, orthogonal

PAGE = Path(__file__).resolve().parents[2] / "docs" / "subjects" / "measures.md"
Model = tuple[Tensor, Tensor]
SCALES = torch.tensor([1.0, 1.0, 0.05], dtype=torch.float64)  # SVCCA leaves the last coordinate of f out
MODEL: Model = (
    torch.randn(60, 3, generator=generator(0), dtype=torch.float64) * SCALES,
    torch.randn(7, 3, generator=generator(1), dtype=torch.float64) / SCALES,
)
A = invertible(3, 2) * torch.tensor([0.05, 1.0, 50.0], dtype=torch.float64)
B, Q = invertible(3, 5), orthogonal(3, 8)


def of_comparison(*fields: str) -> Callable[[Model, Model], list[float]]:
    return lambda model, copy: [getattr(compare_softmax_models(*model, *copy), field) for field in fields]


def of_embeddings(*names: str) -> Callable[[Model, Model], list[float]]:
    return lambda model, copy: [float(REPRESENTATION_MEASURES[name](model[0], copy[0])) for name in names]


MEASURED = {
    "KL, JS, TV": of_comparison("kl_12", "kl_21", "js", "total_variation"),
    "d_LLV": of_comparison("d_llv"),
    "d_logit": of_comparison("d_logit", "d_logit_normalised"),
    "d_SVD(f), d_{f,g}": of_comparison("max_d_svd_f", "d_fg"),
    "d_rep": of_comparison("d_rep"),
    "m_CCA(f), m_CCA(g)": lambda model, copy: [float(m_cca(*pair)) for pair in zip(model, copy, strict=True)],
    "linear CKA, unbiased, RBF": of_embeddings("linear_cka", "unbiased_linear_cka", "rbf_cka"),
    "Procrustes": of_embeddings("procrustes", "procrustes_angle"),
    "RSA (Euclidean)": of_embeddings("rsa"),
    "mutual k-NN, CKNNA": of_embeddings("mutual_knn", "cknna"),
    "SVCCA": of_embeddings("svcca"),
    "PWCCA": of_embeddings("pwcca"),
}
COPIES: dict[str, Callable[[Model], Model]] = {
    "`f → A f`, `g → A⁻ᵀ g + v`": lambda model: (model[0] @ A.T, model[1] @ torch.linalg.inv(A) + 2),
    "`f → A f`, `g → B g`": lambda model: (model[0] @ A.T, model[1] @ B.T),
    "`f → c Q f + v`": lambda model: (3 * model[0] @ Q.T + 2, model[1]),
}


def table() -> dict[str, dict[str, str]]:
    """The page's table of what each measure sees, by row and column."""
    lines = PAGE.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if "values, **alike**" in line)
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines[start : lines.index("", start)]
    ]
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def test_the_table_has_every_measure_and_change() -> None:
    assert set(table()) == set(MEASURED)
    assert all(set(COPIES) <= set(row) for row in table().values())


@pytest.mark.parametrize("change", COPIES)
@pytest.mark.parametrize("name", MEASURED)
def test_each_measure_sees_what_the_page_says(name: str, change: str) -> None:
    row = table()[name]
    alike = 1 if row["values, **alike**"].endswith("**1**") else 0
    values = torch.tensor(MEASURED[name](MODEL, COPIES[change](MODEL)), dtype=torch.float64)
    if row[change].strip("*") == "blind":
        assert bool(((values - alike).abs() < 1e-6).all()), values
    else:
        assert row[change].strip("*") == "sees"
        assert bool(((values - alike).abs() > 0.02).all()), values


def test_every_measure_and_family_is_on_the_page() -> None:
    assert [name for name in [*MEASURES, *FAMILIES] if f"`{name}`" not in PAGE.read_text()] == []


def test_the_families_are_those_of_the_page() -> None:
    rows = re.findall(r"^\| `(\w+)`: (.*?)(?: \(and|\|)", PAGE.read_text(), re.M)
    listed = {family: tuple(re.findall(r"`(\w+)`", members)) for family, members in rows}
    assert listed.pop("peers") == ()
    assert listed == {family: members for family, members in FAMILIES.items() if family != "peers"}


def test_the_columns_of_bounds_are_on_the_page() -> None:
    matrix = torch.zeros(2, 2)
    found = bounds_on(MEASURES, dict.fromkeys([*MEASURES, "certificate"], matrix), dims=[2, 2])
    columns = [bound.column for bounds in found.values() for bound in bounds]
    assert [name for name in columns if f"`{name}`" not in PAGE.read_text()] == []


def test_the_pictures_are_the_ones_that_the_script_draws() -> None:
    drawn = runpy.run_path(str(PAGE.parents[1] / "figures.py"))["FIGURES"]
    assert {f"../images/{name}.png" for name in drawn} == set(re.findall(r"!\[.*\]\((.+)\)", PAGE.read_text()))


def test_the_python_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the representations and models that the page leaves to its reader."""
    monkeypatch.chdir(tmp_path)
    f, data = (torch.randn(50, size, generator=generator(size)) for size in (4, 6))
    layers = {"layer1": nn.Linear(6, 5), "layer2": nn.Linear(5, 3)}
    names: dict[str, object] = {"f": f, "f_other": f.tanh(), "a": nn.Sequential(OrderedDict(layers)), "data": data}
    names["b"] = copy.deepcopy(names["a"])
    for language, code in blocks(PAGE):
        if language == "python":
            run_python(code, names, PAGE.name)
    assert float(names["null"].observed) > 0.8  # type: ignore[attr-defined]
    alike = names["found"].diagonal("unbiased_linear_cka")  # type: ignore[attr-defined]
    assert alike == pytest.approx({"layer1": 1, "layer2": 1})
    assert any((tmp_path / "layers").iterdir())
