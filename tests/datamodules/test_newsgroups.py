"""20 Newsgroups in the file that scikit-learn keeps: zlib over a pickle of two of its own bunches."""

import codecs
import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.utils import Bunch

from datamodules import DataError, NewsGroups20
from datamodules.newsgroups import FILE, GROUPS

POST = "From: someone@somewhere\nSubject: it\n\nSomebody writes:\n> what?\n{}\n\n--\nA signature"


def write(folder: Path, groups: tuple[str, ...] = GROUPS, empty_post: bool = False) -> None:
    """Two posts of each group for training and one for the test."""

    def bunch(per_group: int) -> Bunch:
        target = np.arange(len(groups) * per_group) % len(groups)
        posts = [POST.format(f"Post {number}.") for number in range(len(target))]
        if empty_post:
            posts[3] = "Subject: nothing\n\n"
        return Bunch(data=posts, target=target, target_names=list(groups), filenames=np.array(posts))

    folder.mkdir(parents=True, exist_ok=True)
    cache = {"train": bunch(2), "test": bunch(1)}
    (folder / FILE).write_bytes(codecs.encode(pickle.dumps(cache), "zlib_codec"))


def test_posts_come_with_their_groups_and_without_what_tells_them(tmp_path: Path) -> None:
    write(tmp_path)
    data = NewsGroups20(str(tmp_path), download=False, val_size=20)
    data.prepare_data()
    data.setup()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 20, "val": 20, "test": 20}
    assert [text.strip() for text in data.splits["test"].x] == [f"Post {number}." for number in range(20)]
    assert data.splits["test"].y.tolist() == list(range(20))
    assert data.splits["val"].y.sort().values.tolist() == list(range(20))
    assert data.class_names[7] == "rec.autos"


def test_posts_as_they_were_sent(tmp_path: Path) -> None:
    write(tmp_path)
    data = NewsGroups20(str(tmp_path), download=False, remove=())
    data.setup("test")
    assert data.splits["test"].x[0] == POST.format("Post 0.")


def test_posts_of_which_nothing_is_left(tmp_path: Path) -> None:
    write(tmp_path, empty_post=True)
    dropped, kept, refused = (
        NewsGroups20(str(tmp_path), download=False, empty=empty)
        for empty in ("drop", "keep", "error")  # type: ignore[arg-type]
    )
    dropped.setup("test")
    kept.setup("test")
    assert (len(dropped.splits["test"]), len(kept.splits["test"])) == (19, 20)
    with pytest.raises(DataError, match=r"1 empty text in 20news-bydate_py3\.pkz, test post 3; set empty"):
        refused.setup("test")


def test_what_is_missing_or_other_data_is_named(tmp_path: Path) -> None:
    data = NewsGroups20(str(tmp_path / "none"), download=False)
    data.prepare_data()
    with pytest.raises(DataError, match=r"20news-bydate_py3\.pkz is missing: expected at .*none.*download: true"):
        data.setup("test")
    write(tmp_path, groups=GROUPS[:2])
    with pytest.raises(DataError, match=r"has the groups \['alt\.atheism', 'comp\.graphics'\], expected"):
        NewsGroups20(str(tmp_path), download=False).setup("test")


def test_a_download_that_fails_says_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(**_: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr("sklearn.datasets.fetch_20newsgroups", unreachable)
    with pytest.raises(DataError, match=r"20 Newsgroups could not be downloaded into .* \(no route\)"):
        NewsGroups20(str(tmp_path)).prepare_data()


def test_the_published_posts(root: Path) -> None:
    if not (root / "data" / "newsgroups20" / FILE).exists():
        pytest.skip("20 Newsgroups are not in data/newsgroups20")
    data = NewsGroups20(str(root / "data" / "newsgroups20"), download=False, empty="keep", val_size=0)
    data.setup()
    assert (len(data.splits["train"]), len(data.splits["test"])) == (11_314, 7_532)
