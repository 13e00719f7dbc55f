"""Tables of images, pixel by pixel."""

import numpy as np
import torch

from likeness.figures.samples import image_table, pictures


def test_images_stand_in_their_cells_with_white_between() -> None:
    grey, coloured = np.array([[0.0, 0.25], [0.5, 0.75]]), np.tile([0.1, 0.2, 0.3], (2, 2, 1))
    figure, bars = image_table(
        [[grey, coloured], [None, grey]], ["a", "b"], "title", "What to see.", names=["$z$", ""], bars=True
    )
    tiles = np.asarray(figure.axes[0].images[0].get_array())
    height, width = (side // 2 for side in tiles.shape[:2])
    side = 60  # of an enlarged pixel
    assert tiles[0, 0].tolist() == [0, 0, 0]
    assert tiles[side, side].tolist() == [0.75, 0.75, 0.75]
    assert tiles[0, width].tolist() == [0.1, 0.2, 0.3]
    assert (tiles[height:, :width] == 1).all()
    assert (tiles[2 * side : height] == 1).all()
    assert tiles[height + side, width].tolist() == [0.5, 0.5, 0.5]
    assert len(bars) == 2
    assert [text.get_text() for text in figure.axes[0].texts] == ["a", "b", "$z$", ""]


def test_data_become_pictures() -> None:
    grey = pictures(torch.tensor([-1.5, -1, 0, 1, 2]).reshape(5, 1, 1, 1))
    assert grey.flatten().tolist() == [0, 0, 0.5, 1, 1]
    assert pictures(torch.zeros(4, 3, 2, 5)).shape == (4, 2, 5, 3)
    assert pictures(torch.zeros(4, 2, 2, 5)).shape == (4, 2, 5)
