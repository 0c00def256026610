"""Pictures with Pillow alone."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image

from pgm_sync.errors import NotFiniteError, ShapeError
from pgm_sync.inspection.images import PAPER, comparison, picture, png, sheet


def test_pixels_survive(generator):
    image = torch.randint(0, 256, (3, 5, 7), generator=generator)
    read = Image.open(io.BytesIO(png(picture(image / 255, scale=3))))
    assert read.size == (21, 15)
    for y, x in [(0, 0), (4, 6), (2, 3)]:
        assert read.getpixel((3 * x + 1, 3 * y + 1)) == tuple(image[:, y, x].tolist())


def test_grey_pictures_and_values_outside_the_range():
    made = picture(torch.tensor([[-1.0, 0.5, 2.0]]))
    assert [made.getpixel((x, 0)) for x in range(3)] == [0, 128, 255]


def test_a_sheet_places_every_image():
    made = sheet(torch.stack([torch.full((1, 2, 3), v) for v in (0.0, 1.0, 0.2)]), columns=2, scale=4, gap=2)
    assert made.size == (2 * (12 + 2) + 2, 2 * (8 + 2) + 2)
    assert made.getpixel((3, 3)) == (0, 0, 0)
    assert made.getpixel((18, 3)) == (255, 255, 255)
    assert made.getpixel((3, 13)) == (51, 51, 51)
    assert made.getpixel((18, 13)) == PAPER


def test_a_comparison_writes_the_names():
    images = torch.zeros(2, 1, 4, 16)
    made = comparison({"one": images, "two": images}, columns=2, scale=8)
    bar = made.crop((0, 0, made.width // 2, 22))
    assert any(bar.getpixel((x, y)) != PAPER for x in range(bar.width) for y in range(bar.height))


@pytest.mark.parametrize("shape", [(2, 4, 4), (4,), (1, 1, 4, 4)])
def test_what_is_no_picture_is_refused(shape):
    with pytest.raises(ShapeError, match=r"\(1, H, W\) or \(3, H, W\), not"):
        picture(torch.zeros(shape))


def test_nan_is_refused():
    with pytest.raises(NotFiniteError, match="NaN"):
        picture(torch.tensor([[float("nan")]]))


def test_nothing_to_show_is_refused():
    with pytest.raises(ShapeError, match="at least one image"):
        sheet(torch.zeros(0, 1, 2, 2))
    with pytest.raises(ShapeError, match="at least one sheet"):
        comparison({})
