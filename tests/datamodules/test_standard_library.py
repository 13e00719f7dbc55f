"""The standard library's docstrings: found without importing, each once, the same every time."""

import inspect
import json
import re
import sys
import threading
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from datamodules import docstrings as standard_library
from datamodules.docstrings import FAMILIES, standard_library_docstrings
from likeness.files.errors import DataError


def test_there_are_some_hundreds_of_each_family() -> None:
    docstrings = standard_library_docstrings()
    assert len(docstrings) > 4_000
    assert len({docstring.text for docstring in docstrings}) == len(docstrings)
    counts = Counter(docstring.family for docstring in docstrings)
    assert list(counts) == list(FAMILIES)
    assert min(counts.values()) > 150
    assert max(counts.values()) < 1_000


def test_no_module_is_in_two_families() -> None:
    modules = [module for family in FAMILIES.values() for module in family.split()]
    assert len(modules) == len(set(modules))


@pytest.mark.parametrize(
    ("module", "family", "documented"),
    [(json.decoder, "formats", json.JSONDecoder), (threading, "concurrency", threading.Barrier)],
)
def test_docstrings_are_those_that_python_shows(module: ModuleType, family: str, documented: type) -> None:
    texts = [d.text for d in standard_library_docstrings() if (d.family, d.module) == (family, module.__name__)]
    shown = " ".join((inspect.getdoc(documented) or "").split())
    assert shown in texts
    assert len(texts) > 5


def test_examples_and_the_shortest_are_left_out() -> None:
    for docstring in standard_library_docstrings():
        assert not docstring.text.startswith(">>>")
        assert len(re.findall(r"\w\w+", docstring.text)) >= 4
        assert docstring.text == " ".join(docstring.text.split())


def test_nothing_is_imported_for_it_and_it_is_the_same_again() -> None:
    before = set(sys.modules)
    assert standard_library_docstrings.__wrapped__() == standard_library_docstrings()
    assert set(sys.modules) == before
    assert not {"ftplib", "mailbox", "pyclbr", "symtable"} <= before  # some modules are there to be imported


def test_docstrings_come_in_the_order_of_lines_from_wherever_they_are_defined(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(SOURCE)
    assert list(standard_library._texts(path)) == [f"The {i} docstring here." for i in ORDINALS]


ORDINALS = ["first", "second", "third", "fourth", "fifth"]
SOURCE = '''"""The first docstring here."""
@decorated
class A:
    """The second
    docstring here.

    >>> A()
    no prose
    """
    async def f(self):
        """Too short a one."""
        "The sixth docstring, which is none."
        def g():
            """The third docstring here."""
    def h(self): "short"
try:
    def k(): """The fourth docstring here."""
except ImportError:
    if True:
        def k(): """The fifth docstring here."""
'''


def test_an_installation_without_sources_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standard_library.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match=r"has no source files of asyncio .*: is Python installed without them\?"):
        standard_library_docstrings.__wrapped__()


def test_packages_are_read_without_their_tests(tmp_path: Path) -> None:
    package = tmp_path / "json"
    for name in ("__init__.py", "inner/tool.py", "test/test_it.py", "tests/other.py"):
        file = package / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'"""The docstring of {name}."""\n')
    sources = standard_library._sources(tmp_path, "json")
    names = [standard_library._module_name(tmp_path, path) for path in sources]
    assert names == ["json", "json.inner.tool"]
    assert [list(standard_library._texts(path)) for path in sources] == [
        ["The docstring of __init__.py."],
        ["The docstring of inner/tool.py."],
    ]
