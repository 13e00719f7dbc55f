"""docs/subjects/hubness.md against the functions: its null values, its code, its commands, its pictures."""

import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from likeness.hubness.analysis import analyse_hubness
from likeness.hubness.null import null_indices
from likeness.hubness.reductions import REDUCTIONS
from likeness.seeding import generator
from scripts import hubness
from scripts.hubness.methods import build_method

PAGE = Path(__file__).resolve().parents[2] / "docs" / "subjects" / "hubness.md"
TEXT = PAGE.read_text()


def rows(first: str) -> list[list[str]]:
    """The table whose header starts with this cell."""
    lines = TEXT.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    table = lines[start : next(number for number in range(start, len(lines)) if not lines[number].startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def test_the_null_values_are_those_of_chance() -> None:
    null = null_indices(7600, 7600, 10, in_sample=True).indices()
    checked = []
    for question, about, values in rows("the question"):
        names = [name for name in re.findall(r"`(\w+)`", about) if name in null]
        numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", values.split("(")[0])]
        if question != "Are neighbours mutual?" and numbers:
            for name, number in zip(names, numbers, strict=False):
                decimals = len(str(number).partition(".")[2])
                assert round(null[name], max(decimals, 0)) == pytest.approx(number, abs=0.51 * 10**-decimals), name
                checked.append(name)
    assert {"k_skewness", "robin_hood", "gini", "atkinson", "shannon_evenness", "antihub_rate"} <= {*checked}
    by_chance = next(row for row in rows("AG News") if row[0] == "by chance")
    assert [float(cell) for cell in by_chance[1:4]] == pytest.approx(
        [null["k_skewness"], null["robin_hood"], null["antihub_rate"]], abs=5e-4
    )


def test_every_index_and_every_reduction_is_on_the_page() -> None:
    names = analyse_hubness(torch.eye(5), 2, labels=[0, 0, 1, 1, 1]).indices()
    assert [name for name in names if f"`{name}`" not in TEXT] == []
    assert [name for name in REDUCTIONS if f"`{name}`" not in TEXT] == []


def test_methods_of_the_page_can_be_built() -> None:
    methods = [row[0] for row in rows("AG News") if re.fullmatch(r"[a-z_:+=\d]+", row[0])]
    assert len(methods) > 8
    for method in [*methods, "f_norm:joint=true", "mutual_proximity:candidates=200"]:
        build_method(method)


def test_the_commands_of_the_page_parse() -> None:
    commands = re.findall(r"^python -m scripts\.hubness (.+?)(?:\s+#.*)?$", TEXT, re.M)
    assert len(commands) >= 6
    parser = hubness.build_parser()
    for command in commands:
        arguments = parser.parse_args(shlex.split(command))
        for method in arguments[arguments.command].get("methods", []):
            build_method(method)


def test_the_sharded_code_gives_the_numbers_of_one_process() -> None:
    points, k = torch.randn(120, 8, generator=generator(0)), 5
    asked = torch.randn(70, 8, generator=generator(1))
    shards: dict[str, Any] = {
        "n": 120, "m": 70, "k": k, "points_of_an_owner": 50,
        "index_shards": points.split(45), "first_ids": [0, 45, 90], "query_shards": asked.split(32),
    }  # fmt: skip
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    exec(code, shards)
    expected = analyse_hubness(points, k, queries=asked)
    assert torch.equal(shards["report"].k_occurrence, expected.k_occurrence)
    assert shards["report"].indices() == expected.indices()
    assert shards["indices"].indices() == expected.indices()
    assert shards["report"].null.indices() == expected.null.indices()


def test_the_pictures_are_the_ones_that_the_script_draws() -> None:
    drawn = runpy.run_path(str(PAGE.parents[1] / "hubness_figures.py"))["FIGURES"]
    assert {f"../images/{name}.png" for name in drawn} == set(re.findall(r"!\[.*\]\((.+)\)", TEXT))
