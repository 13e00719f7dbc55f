"""The names of a head's labels, and finding a label by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from likeness.files.text_files import read_lines
from scripts.inspect_head.files import read_json


class Labels:
    """The names of K labels; without names, their numbers."""

    def __init__(self, count: int, names: Sequence[str] | None = None) -> None:
        self.count = count
        self.names = names

    def __getitem__(self, label: int) -> str:
        return str(label) if self.names is None else self.names[label]

    def __iter__(self) -> Iterator[str]:
        return (self[label] for label in range(self.count))

    def printable(self, label: int) -> str:
        """The name as one line of a table can show it."""
        name = self[label]
        return name if name.isprintable() and name.strip() else repr(name)

    def find(self, name: str) -> int:
        """The label of this name, or of this number where no label has that name.

        Raises ValueError for an unknown name, listing those that are near, and for one that several labels share.
        """
        found = [label for label, other in enumerate(self.names or ()) if other == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"label {name!r} is ambiguous: numbers {', '.join(map(str, found[:8]))} have that name")
        if name.isdecimal() and int(name) < self.count:
            return int(name)
        raise ValueError(f"there is no label {name!r}: {self._near(name)}")

    def _near(self, name: str) -> str:
        if self.names is None:
            return f"they are numbered 0 to {self.count - 1}, and --labels can name them"
        near = get_close_matches(name, self.names, n=5, cutoff=0.5)
        near += [other for other in self.names if other.strip().lower() == name.strip().lower() and other not in near]
        quoted = ", ".join(repr(other) for other in near[:8])
        return f"did you mean {quoted}?" if near else f"none of the {self.count} labels is like it"


def read_labels(path: Path, count: int) -> list[str]:
    """The names of K labels in a file: a line each, or a JSON list or object {name: number}.

    Raises ValueError naming the file if it does not hold K names.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of labels {path}")
    if path.suffix == ".json":
        content = read_json(path)
        names = sorted(content, key=content.__getitem__) if isinstance(content, dict) else content
    else:
        names = read_lines(path)
    if not isinstance(names, list) or len(names) != count:
        found = len(names) if isinstance(names, list) else "no list of"
        raise ValueError(f"{path} holds {found} labels, but the head has {count}")
    return [str(name) for name in names]


def read_vocabulary(folder: Path, count: int) -> list[str] | None:
    """Token strings of a Hugging Face model directory by number, if it says; rows without one get a name too."""
    tokens: Mapping[str, int] = {}
    if (folder / "tokenizer.json").is_file():
        content = read_json(folder / "tokenizer.json")
        vocabulary = content.get("model", {}).get("vocab", {})
        if isinstance(vocabulary, list):  # unigram models: token and score
            vocabulary = {entry[0]: number for number, entry in enumerate(vocabulary)}
        tokens = {**vocabulary, **{token["content"]: token["id"] for token in content.get("added_tokens", [])}}
    elif (folder / "vocab.json").is_file():
        tokens = read_json(folder / "vocab.json")
    elif (folder / "vocab.txt").is_file():
        tokens = {token: number for number, token in enumerate(read_lines(folder / "vocab.txt"))}
    return names_of_tokens(tokens, count) if tokens else None


def names_of_tokens(tokens: Mapping[str, int], count: int) -> list[str]:
    """The names of K rows by the numbers of tokens, rows without a token getting a name too."""
    labels = [f"<unused {number}>" for number in range(count)]
    for token, number in tokens.items():
        if 0 <= number < count:
            labels[number] = token
    return labels


def names_of_classes(config: Mapping[str, Any], count: int) -> list[str] | None:
    """The names of a classifier's K labels in its ``config.json``, if it has one for each."""
    names = config.get("id2label")
    if not isinstance(names, dict) or set(names) != {str(number) for number in range(count)}:
        return None
    return [str(names[str(number)]) for number in range(count)]
