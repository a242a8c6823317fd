from __future__ import annotations

import io
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from reid_cckd.data.images import DamagedImageError, decode, in_threads, read_image
from tests.data.trees import write_image


def damage(path: Path, how: str) -> Path:
    whole = write_image(path, size=(64, 32)).read_bytes()
    if how == "missing":
        path.unlink()
        return path
    path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"404: not found"}[how])
    return path


def test_pixels_are_those_of_the_file(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image, pixels)
    assert image.flags.writeable


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new("RGB", (4, 6), (255, 255, 255)).convert(mode).save(path)
    image = read_image(path)
    assert (image.shape, image.dtype) == ((6, 4, 3), np.uint8)
    assert (image == 255).all()


@pytest.mark.parametrize("kind", ["png", "tif", "pgm"])
def test_grey_values_of_16_bits_keep_their_upper_eight(tmp_path: Path, kind: str) -> None:
    """Pillow's own conversion makes all of them but the darkest 255."""
    grey = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / f"a.{kind}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{kind}"), np.repeat(grey[..., None] >> 8, 3, axis=2))


def test_floating_point_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DamagedImageError, match="unknown range"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("turned", range(1, 9))
def test_an_image_stands_upright_as_its_exif_data_say(tmp_path: Path, turned: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turned
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), cv2.imread(str(tmp_path / "a.png"))[..., ::-1])


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"x"])
def test_damaged_exif_data_turn_nothing(tmp_path: Path, exif: bytes) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels)


def test_resizing_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    small = read_image(tmp_path / "a.png", (16, 8))
    assert small.shape == (16, 8, 3)
    assert np.abs(small[:, 1:-1].astype(int) - 127).max() <= 16  # picking every eighth column would give 0 or 255


@pytest.mark.parametrize(
    ("how", "reason"),
    [("truncated", "truncated"), ("empty", "0 bytes"), ("text", "not an image"), ("missing", "missing")],
)
def test_a_damaged_file_is_named_with_its_reason(tmp_path: Path, how: str, reason: str) -> None:
    path = damage(tmp_path / "a.jpg", how)
    with pytest.raises(DamagedImageError) as caught:
        read_image(path, (8, 4))
    text = str(caught.value)
    assert str(path) in text
    assert reason in text.lower()
    assert "on_bad_image: skip" in text
    assert "\n" not in text


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(DamagedImageError, match="it is a folder"):
        read_image(tmp_path)


def test_the_error_can_be_pickled(tmp_path: Path) -> None:
    error = DamagedImageError("a.jpg cannot be decoded: why. What to do.")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("workers", [1, 3, None])
def test_threads_keep_the_order(workers: int | None) -> None:
    assert list(in_threads(lambda row: row * row, range(50), workers)) == [row * row for row in range(50)]


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("L", (64, 64)).save(buffer, "JPEG")
    whole = buffer.getvalue()
    start = whole.index(b"\xff\xc0") + 5  # height and width of the frame
    bomb = whole[:start] + b"\x23\x28\x23\x28" + whole[start + 4 :]
    assert "9000 x 9000 pixels" in str(decode(bomb))
    (tmp_path / "a.jpg").write_bytes(bomb)
    with pytest.raises(DamagedImageError, match="9000 x 9000 pixels"):
        read_image(tmp_path / "a.jpg")


def test_bytes_are_decoded_as_files_are(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png")
    np.testing.assert_array_equal(decode(path.read_bytes(), (4, 4)), read_image(path, (4, 4)))
    assert "0 bytes" in str(decode(b""))
    assert "not an image" in str(decode(b"404"))


def test_threads_do_not_run_far_ahead() -> None:
    started: list[int] = []
    rows = in_threads(lambda row: started.append(row) or row, range(10_000), workers=2)  # type: ignore[func-returns-value]
    assert next(rows) == 0
    rows.close()  # type: ignore[attr-defined]
    assert len(started) <= 66


def test_an_error_in_a_thread_arrives() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda row: 1 // (5 - row), range(10_000), workers=2))
