"""20 Newsgroups, through scikit-learn."""

from pathlib import Path
from typing import Any, Literal

import torch

from datamodules.errors import downloading
from datamodules.splits import SplitName, TextSplit
from datamodules.texts import EmptyTexts, TextDataModule, nonempty_rows
from likeness.files.errors import DataError, missing

Removable = Literal["headers", "footers", "quotes"]
FILE = "20news-bydate_py3.pkz"
GROUPS = (
    "alt.atheism",
    "comp.graphics",
    "comp.os.ms-windows.misc",
    "comp.sys.ibm.pc.hardware",
    "comp.sys.mac.hardware",
    "comp.windows.x",
    "misc.forsale",
    "rec.autos",
    "rec.motorcycles",
    "rec.sport.baseball",
    "rec.sport.hockey",
    "sci.crypt",
    "sci.electronics",
    "sci.med",
    "sci.space",
    "soc.religion.christian",
    "talk.politics.guns",
    "talk.politics.mideast",
    "talk.politics.misc",
    "talk.religion.misc",
)


class NewsGroups20(TextDataModule[TextSplit]):
    """Posts to 20 newsgroups, divided by date: 11,314 for training and 7,532 for the test.

    Lang 1995. Without headers, footers and quotes nothing is left of a few hundred posts.
    """

    class_names = GROUPS
    num_classes = len(GROUPS)
    dataset_name = "newsgroups20"

    def __init__(
        self,
        data_dir: str = "data/newsgroups20",
        download: bool = True,
        remove: tuple[Removable, ...] = ("headers", "footers", "quotes"),
        empty: EmptyTexts = "drop",
        val_size: int = 1_000,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            data_dir: Folder of scikit-learn's file, 20news-bydate_py3.pkz. Reading it can run code: use your own.
            download: Fetch the posts (14 MB) where they are missing.
            remove: What is taken out of each post; any of it tells a classifier the group.
            empty: What to do about posts of which nothing is left: refuse them, drop or keep them.
            val_size: Training posts held out for validation; 0 validates on the test posts.
        """
        super().__init__(published=("train", "test"), val_size=val_size, test_size=0, **kwargs)
        self.data_dir = Path(data_dir).expanduser()
        self.download = download
        self.remove = tuple(remove)
        self.empty: EmptyTexts = empty

    def prepare_data(self) -> None:
        from sklearn.datasets import fetch_20newsgroups

        if self.download and not (self.data_dir / FILE).exists():
            with downloading("20 Newsgroups", self.data_dir, "scikit-learn's fetch_20newsgroups"):
                fetch_20newsgroups(data_home=str(self.data_dir))

    def read(self, part: SplitName) -> TextSplit:
        from sklearn.datasets import fetch_20newsgroups

        if not (self.data_dir / FILE).exists():
            raise missing(self.data_dir / FILE, "set download: true, or copy the file of scikit-learn's data folder")
        posts = fetch_20newsgroups(
            data_home=str(self.data_dir), subset=part, shuffle=False, remove=self.remove, download_if_missing=False
        )
        if tuple(posts.target_names) != GROUPS:
            raise DataError(f"{self.data_dir / FILE} has the groups {posts.target_names}, expected {list(GROUPS)}")
        rows = nonempty_rows(f"{FILE}, {part} post", posts.data, range(len(posts.data)), self.empty)
        return TextSplit(posts.data, torch.from_numpy(posts.target).long()).select(torch.tensor(rows))
