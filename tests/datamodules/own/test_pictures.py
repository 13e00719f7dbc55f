"""Odd pictures are read by the stated rule, checked against arithmetic on their pixels; what is none is named."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.own.pictures import Fit, decode
from datamodules.own.samples import SampleError
from tests.datamodules.own.toys import picture, png, save

RGB = picture(0)
GREY = RGB[..., 0]


def rgb(pixels: np.ndarray) -> torch.Tensor:
    """[H, W] or [H, W, 3] as a picture [3, H, W]."""
    pixels = np.repeat(pixels[..., None], 3, 2) if pixels.ndim == 2 else pixels
    return torch.from_numpy(pixels).permute(2, 0, 1)


def encoded(image: Image.Image, kind: str = "png", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def over_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None].astype(float) / 255
    return pixels * share + 255 * (1 - share)


def test_grey_colour_and_palette_keep_their_pixels() -> None:
    palette = Image.fromarray(RGB // 64 * 64).quantize(64)
    cases = {
        "RGB": (Image.fromarray(RGB), RGB),
        "grey": (Image.fromarray(GREY), GREY),
        "palette": (palette, RGB // 64 * 64),
        "black and white": (Image.fromarray(GREY > 127), np.where(GREY > 127, 255, 0).astype(np.uint8)),
    }
    for name, (image, expected) in cases.items():
        assert torch.equal(decode(encoded(image), 3, name), rgb(expected)), name


def test_of_16_bits_the_upper_8_are_kept() -> None:
    deep = GREY.astype(np.uint16) * 256 + 201
    for kind in ("png", "tiff", "ppm"):
        assert torch.equal(decode(encoded(Image.fromarray(deep), kind), 1, kind)[0], torch.from_numpy(GREY))


def test_transparent_pixels_are_laid_over_white() -> None:
    alpha = picture(1)[..., 0]
    expected = torch.from_numpy(over_white(RGB, alpha)).permute(2, 0, 1)
    found = decode(encoded(Image.fromarray(np.dstack([RGB, alpha]))), 3, "RGBA")
    assert (found - expected).abs().max() <= 1
    grey = decode(encoded(grey_with(alpha)), 1, "LA")
    assert (grey[0] - torch.from_numpy(over_white(GREY[..., None], alpha))[..., 0]).abs().max() <= 1
    palette = Image.fromarray(RGB).quantize(8)
    clear = palette.getpixel((0, 0))
    seen = decode(encoded(palette, transparency=clear), 3, "palette")
    assert seen[:, np.asarray(palette) == clear].eq(255).all()


def grey_with(alpha: np.ndarray) -> Image.Image:
    image = Image.fromarray(GREY)
    image.putalpha(Image.fromarray(alpha))
    assert image.mode == "LA"
    return image


def test_cmyk_is_light_that_the_inks_leave() -> None:
    inks = np.dstack([picture(2), np.zeros_like(GREY)])
    image = Image.frombytes("CMYK", (10, 12), inks.tobytes())
    assert torch.equal(decode(encoded(image, "tiff"), 3, "CMYK"), rgb(255 - inks[..., :3]))


def test_the_rotation_of_exif_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn by a quarter, clockwise
    turned = decode(encoded(Image.fromarray(RGB), exif=exif), 3, "turned")
    assert torch.equal(turned, rgb(np.rot90(RGB, -1).copy()))


def test_grey_of_colour_is_the_luma_of_the_standard() -> None:
    luma = RGB @ np.array([0.299, 0.587, 0.114])  # ITU-R 601
    assert (decode(png(RGB), 1, "grey")[0].numpy() - luma).__abs__().max() <= 1


def test_the_content_tells_the_format_whatever_the_suffix_says(tmp_path: Path) -> None:
    wrong = shutil.move(save(tmp_path / "a.png", RGB), tmp_path / "a.jpg")
    assert torch.equal(decode(Path(wrong), 3, "a"), rgb(RGB))


def test_of_several_frames_the_first_is_taken() -> None:
    file = io.BytesIO()
    frames = [Image.fromarray(GREY // 128 * 255), Image.fromarray(255 - GREY // 128 * 255)]
    frames[0].save(file, "gif", save_all=True, append_images=frames[1:])
    assert torch.equal(decode(file.getvalue(), 1, "gif")[0], torch.from_numpy(GREY // 128 * 255))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no bytes"),
        (b"no picture at all", "is no picture"),
        (png(RGB)[:-150], "cannot be decoded: .*truncated"),
        (png(RGB)[:20] + b"\xff" * 40, "is no picture|cannot be decoded"),
        (encoded(Image.fromarray(GREY.astype(np.float32)), "tiff"), "has 32-bit pixels"),
        (encoded(Image.fromarray(RGB), "jpeg")[:300], "cannot be decoded|is no picture"),
    ],
)
def test_what_is_no_picture_is_named_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    for source in (content, path):
        with pytest.raises(SampleError, match=f"^{path} (?:{message})") as error:
            decode(source, 3, str(path))
        assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore")  # of Pillow, about tags that make no sense
@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp", "webp", "dds"])
def test_damage_of_any_kind_is_read_or_named(kind: str) -> None:
    """Bytes changed at random, most of them in the header: a picture, or the one error that can be skipped."""
    random, whole = np.random.default_rng(0), np.frombuffer(encoded(Image.fromarray(RGB), kind), np.uint8)
    named = 0
    for _ in range(150):
        damaged = whole[: random.integers(1, len(whole) + 1)].copy() if random.random() < 0.3 else whole.copy()
        damaged[random.integers(0, min(len(damaged), 128), 3)] = random.integers(0, 256, 3)
        try:
            assert decode(damaged.tobytes(), 3, "it").shape[0] == 3
        except SampleError as error:
            named += str(error).startswith("it ")
    assert named > 20


@pytest.mark.parametrize("size", [(6, 6), (30, 20), (5, 40), (12, 10)])
def test_a_fitted_picture_covers_its_size_around_the_centre(size: tuple[int, int]) -> None:
    """Of a ramp the centre stays in the centre, to half a pixel, at the scale of the larger ratio."""
    rows, columns = np.mgrid[0:120, 0:100]
    ramp = torch.from_numpy(np.stack([rows, columns]).astype(np.float32))
    height, width = size
    fitted = Fit(size)(ramp)
    assert fitted.shape == (2, height, width)
    scale = max(height / 120, width / 100)
    assert fitted.mean((1, 2)).numpy() == pytest.approx([59.5, 49.5], abs=0.6 / scale)
    steps = [fitted[0].diff(dim=0)[1:-1].mean(), fitted[1].diff(dim=1)[:, 1:-1].mean()]
    assert [float(step) for step in steps] == pytest.approx([1 / scale] * 2, rel=0.1)


def test_a_picture_of_the_size_is_left_as_it_is() -> None:
    whole = rgb(RGB)
    assert Fit((12, 10))(whole) is whole
