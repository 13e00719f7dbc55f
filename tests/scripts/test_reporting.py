"""Files of commands are whole or not there."""

from pathlib import Path

import numpy as np
import pytest

from scripts.reporting import write_array, write_arrays


def test_arrays_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    one = write_array(tmp_path / "folder" / "one.npy", np.arange(3))
    several = write_arrays(tmp_path / "folder" / "several.npz", {"x": np.arange(2), "y": np.ones(1)})
    with pytest.raises(ValueError, match="Object arrays"):
        write_array(one, np.array([object()]))
    with pytest.raises(ValueError, match="Object arrays"):
        write_arrays(several, {"x": np.arange(4), "y": np.array([object()])})
    assert np.load(one).tolist() == [0, 1, 2]
    assert np.load(several)["x"].tolist() == [0, 1]
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["one.npy", "several.npz"]
