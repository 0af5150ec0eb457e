from __future__ import annotations

import contextlib
import io
import struct
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facekit.errors import ConfigError, FacekitError, ImageError
from facekit.images import (
    MAX_PIXELS,
    MOST_SCANS,
    as_inputs,
    encoded_size,
    find_pictures,
    names_below,
    read_image,
    to_gray,
)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """A smooth picture (60, 90, 3) that no turn or mirror leaves as it is."""
    y, x = np.mgrid[:60, :90]
    return np.stack([x * 2.8, y * 4.2, (x + y) * 1.7], -1).round().astype(np.uint8)


def assert_alike(found: np.ndarray, expected: np.ndarray, tolerance: float = 0) -> None:
    assert found.dtype == np.uint8
    assert found.shape == expected.shape
    assert found.flags.c_contiguous
    assert found.flags.writeable
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= tolerance


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_files_come_back_exactly(scene, tmp_path, kind):
    data = encoded(Image.fromarray(scene), kind)
    path = tmp_path / "picture.dat"
    path.write_bytes(data)
    for source in (path, str(path), data, bytearray(data), memoryview(data)):
        assert_alike(read_image(source), scene)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("WEBP", {"quality": 95}),
    ],
)
def test_lossy_files_come_back_closely(scene, kind, options):
    assert_alike(read_image(encoded(Image.fromarray(scene), kind, **options)), scene, 12)


def test_jpegs_have_the_same_pixels_as_from_pillow(scene):
    data = encoded(Image.fromarray(scene), "JPEG", quality=85)
    assert_alike(read_image(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture_upright(scene, kind, orientation):
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](scene)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, quality=95)
    assert_alike(read_image(data), scene, 12)


def test_a_pil_image_is_turned_too(scene):
    exif = Image.Exif()
    exif[0x0112] = 3
    opened = Image.open(io.BytesIO(encoded(Image.fromarray(scene[::-1, ::-1].copy()), "PNG", exif=exif)))
    assert_alike(read_image(opened), scene)


def test_cmyk_jpegs_come_back_in_their_colours(scene):
    data = encoded(Image.fromarray(scene).convert("CMYK"), "JPEG", quality=95)
    assert_alike(read_image(data), scene, 16)


def test_16_bit_gray_keeps_its_brightness(tmp_path):
    gray = np.linspace(0, 65535, 48 * 48).astype(np.uint16).reshape(48, 48)
    expected = np.round(gray / 257).astype(np.uint8)[..., None].repeat(3, 2)
    for kind in ("PNG", "TIFF"):
        assert_alike(read_image(encoded(Image.fromarray(gray), kind)), expected)
    pgm = b"P5 48 48 65535\n" + gray.astype(">u2").tobytes()
    assert_alike(read_image(pgm), expected)


def test_float_tiffs_are_read_as_0_to_1_and_else_refused():
    gray = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    expected = np.rint(gray * 255).astype(np.uint8)[..., None].repeat(3, 2)
    assert_alike(read_image(encoded(Image.fromarray(gray), "TIFF")), expected)
    with pytest.raises(ImageError, match=r"0\.\.1"):
        read_image(encoded(Image.fromarray(gray * 300), "TIFF"))


@pytest.mark.parametrize("mode", ["1", "L", "P", "YCbCr", "HSV"])
def test_every_mode_becomes_rgb(scene, mode):
    image = Image.fromarray(scene).convert(mode)
    assert_alike(read_image(image), np.asarray(image.convert("RGB")))


def test_animations_give_their_first_frame(scene):
    first, second = Image.fromarray(scene), Image.fromarray(255 - scene)
    for kind, tolerance in (("GIF", 60), ("WEBP", 12), ("PNG", 0)):
        data = encoded(first, kind, save_all=True, append_images=[second], duration=50)
        assert Image.open(io.BytesIO(data)).n_frames == 2
        assert_alike(read_image(data), scene, tolerance)


def test_what_is_transparent_lies_on_white(scene):
    alpha = np.zeros(scene.shape[:2], np.uint8)
    alpha[:20], alpha[20:40] = 255, 128
    share = alpha[..., None] / 255
    expected = np.round(scene * share + 255 * (1 - share)).astype(np.uint8)
    rgba = np.dstack([scene, alpha])
    assert_alike(read_image(rgba), expected, 1)
    assert_alike(read_image(encoded(Image.fromarray(rgba), "PNG")), expected, 1)
    assert_alike(read_image(rgba[..., [2, 1, 0, 3]], color="bgr"), expected, 1)
    assert_alike(read_image(rgba.astype(np.float32) / 255), expected, 1)
    indexed = Image.new("P", (4, 4), 0)
    indexed.putpalette([200, 0, 0] * 256)
    assert_alike(read_image(encoded(indexed, "PNG", transparency=0)), np.full((4, 4, 3), 255, np.uint8))


def test_arrays_of_every_form_give_the_same_picture(scene):
    assert read_image(scene) is scene
    assert_alike(read_image(scene[..., ::-1], color="bgr"), scene)
    assert_alike(read_image(scene[::2, ::3]), scene[::2, ::3])
    for dtype in (np.float16, np.float32, np.float64):
        assert_alike(read_image((scene / 255).astype(dtype)), scene)
    gray = scene[..., 0]
    for array in (gray, gray[..., None], gray / 255, gray[..., None] / np.float32(255)):
        assert_alike(read_image(array), gray[..., None].repeat(3, 2))
    fixed = scene.copy()
    fixed.flags.writeable = False
    assert_alike(read_image(fixed), scene)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.bfloat16])
def test_tensors_are_channels_first(scene, dtype):
    tensor = torch.from_numpy(scene).permute(2, 0, 1)
    tensor = tensor if dtype == torch.uint8 else (tensor.float() / 255).to(dtype)
    tolerance = 1 if dtype == torch.bfloat16 else 0
    assert_alike(read_image(tensor), scene, tolerance)
    assert_alike(read_image(tensor.flip(0), color="bgr"), scene, tolerance)


def test_one_pixel_is_a_picture():
    assert_alike(read_image(np.array([[7]], np.uint8)), np.full((1, 1, 3), 7, np.uint8))
    assert_alike(read_image(encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")), np.uint8([[[1, 2, 3]]]))


WRONG_ARRAYS = {
    "no pixels": (np.zeros((0, 0, 3), np.uint8), "0x0 pixels"),
    "no columns": (np.zeros((5, 0), np.uint8), "0x5 pixels"),
    "one dimension": (np.zeros(9, np.uint8), r"shape \(9,\); expected \(H, W\)"),
    "channels first": (np.zeros((3, 20, 30), np.uint8), r"shape \(3, 20, 30\)"),
    "two channels": (np.zeros((9, 9, 2), np.uint8), r"shape \(9, 9, 2\)"),
    "five dimensions": (np.zeros((1, 1, 9, 9, 3), np.uint8), "shape"),
    "int64": (np.zeros((9, 9), np.int64), "dtype int64; expected uint8"),
    "bool": (np.zeros((9, 9), bool), "dtype bool"),
    "text": (np.array([["a"]]), "dtype <U1"),
    "NaN": (np.full((9, 9), np.nan), "nan..nan; expected 0..1"),
    "infinite": (np.full((9, 9), np.inf), "inf"),
    "0 to 255": (np.full((9, 9, 3), 200.0), "200..200; expected 0..1"),
    "below 0": (np.full((9, 9), -0.1), "-0.1"),
    "gray tensor": (torch.zeros(9, 9), r"tensor of shape \(9, 9\); expected \(3, H, W\)"),
    "channels last": (torch.zeros(9, 9, 3), "tensor of shape"),
    "int tensor": (torch.zeros(3, 9, 9, dtype=torch.int32), "dtype int32"),
    "a number": (5, "of type int; expected a path"),
    "nothing": (None, "of type NoneType"),
    "empty PIL image": (Image.new("RGB", (0, 0)), "0x0 pixels"),
}


@pytest.mark.parametrize(("source", "message"), WRONG_ARRAYS.values(), ids=WRONG_ARRAYS.keys())
def test_what_is_no_picture_is_refused(source, message):
    with pytest.raises(ImageError, match=message):
        read_image(source)


def broken_files() -> dict[str, tuple[bytes, str]]:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    jpeg, progressive = encoded(noise, "JPEG"), encoded(noise, "JPEG", progressive=True)
    return {
        "empty": (b"", "it is empty"),
        "text": (b"hello, I am no picture\n", "not a picture, it starts with b'hello"),
        "one byte": (b"P", "not a picture"),
        "only a JPEG's mark": (jpeg[:3], "cut off"),
        "JPEG without its last byte": (jpeg[:-1], "cut off"),
        "half a JPEG": (jpeg[: len(jpeg) // 2], "cut off"),
        "half a progressive JPEG": (progressive[: len(progressive) // 2], "cut off"),
        "half a PNG": (encoded(noise, "PNG")[:5000], "cut off"),
        "half a WebP": (encoded(noise, "WEBP")[:900], "cut off"),
        "half a GIF": (encoded(noise, "GIF")[:1800], "cut off"),
        "half a TIFF": (encoded(noise, "TIFF")[:3000], "cut off"),
    }


@pytest.mark.parametrize(("data", "message"), broken_files().values(), ids=broken_files().keys())
def test_a_broken_file_is_named_with_what_is_wrong(tmp_path, data, message):
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=message) as caught:
        read_image(path)
    assert str(caught.value).startswith(str(path))
    with pytest.raises(ImageError, match=message):
        read_image(data)


def test_random_damage_never_raises_anything_else(scene):
    rng = np.random.default_rng(1)
    image = Image.fromarray(scene)
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"):
        data = np.frombuffer(encoded(image, kind), np.uint8)
        for _ in range(60):
            damaged = data.copy()
            damaged[rng.integers(0, len(data), 8)] = rng.integers(0, 256, 8)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's own remarks on what it could still read
                with contextlib.suppress(ImageError):
                    read_image(damaged.tobytes(), max_pixels=10**6)


def test_files_that_are_not_there_or_not_files(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "missing.jpg")
    with pytest.raises(ImageError, match="a folder"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(str(tmp_path / ("x" * 5000)))
    with pytest.raises(ImageError, match="cannot be read"):
        read_image("nul\0byte.jpg")


def png_header(width: int, height: int) -> bytes:
    """The start of a PNG that claims a size and holds next to nothing."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(bytes(1000))
    chunks = [
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (head, body)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_too_many_pixels_are_refused_before_decoding():
    start = time.perf_counter()
    for side in (10_000, 14_000, 20_000, 100_000):
        with pytest.raises(ImageError, match=f"{side}x{side} is .* limit is 50,000,000; .*--max-pixels"):
            read_image(png_header(side, side))
    assert time.perf_counter() - start < 1
    assert MAX_PIXELS == 50_000_000


@pytest.fixture(scope="module")
def progressive(scene) -> tuple[bytes, bytes, int]:
    """What stands before the last scan of a JPEG, that scan, and the number of those before it."""
    data = encoded(Image.fromarray(scene[..., 0]), "JPEG", progressive=True)
    head, mark, scan = data.removesuffix(b"\xff\xd9").rpartition(b"\xff\xda")
    return head, mark + scan, head.count(mark)


def jpeg_with_scans(progressive: tuple[bytes, bytes, int], count: int, between: bytes = b"") -> bytes:
    head, scan, before = progressive
    return head + scan + between + scan * (count - before - 1) + b"\xff\xd9"


@pytest.mark.parametrize("between", [b"", b"\xff\xff", b"\0\xff\0\xff\xd0\xff\x01", b"\xff\x02\xff\xff"])
def test_a_jpeg_that_goes_over_its_pixels_again_and_again_is_refused(progressive, tmp_path, between):
    data = jpeg_with_scans(progressive, MOST_SCANS + 1, between)
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    for source in (data, path):
        for look in (read_image, encoded_size):
            with pytest.raises(ImageError, match="more than 100 scans; save it anew"):
                look(source)
    assert read_image(jpeg_with_scans(progressive, MOST_SCANS)).shape == (60, 90, 3)


def test_scans_of_thumbnails_and_of_what_follows_a_jpeg_do_not_count(progressive):
    scans = b"\xff\xda" * 200
    data = jpeg_with_scans(progressive, 10)
    comment = b"\xff\xfe" + struct.pack(">H", len(scans) + 2) + scans
    assert_alike(read_image(data[:2] + comment + data[2:] + scans), read_image(data))
    assert encoded_size(data[:2] + comment + data[2:] + scans) == (90, 60)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_the_limit_is_the_callers_and_not_pillows(scene, monkeypatch, kind):
    data = encoded(Image.fromarray(scene), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))
    assert read_image(data).shape == scene.shape


def test_the_limit_can_be_raised_and_lowered(scene):
    for source in (
        scene,
        Image.fromarray(scene),
        encoded(Image.fromarray(scene), "PNG"),
        torch.zeros(3, 60, 90),
    ):
        with pytest.raises(ImageError, match="90x60 is 5,400 pixels"):
            read_image(source, max_pixels=5399)
        assert read_image(source, max_pixels=5400).shape == scene.shape


def test_an_unknown_color_is_a_config_error(scene):
    with pytest.raises(ConfigError, match="'gbr': expected 'rgb' or 'bgr'"):
        read_image(scene, color="gbr")


def test_errors_can_be_caught_as_value_errors():
    assert issubclass(ImageError, ValueError)
    assert issubclass(ImageError, FacekitError)


def test_one_input_or_many(scene, tmp_path):
    batch = np.stack([scene, 255 - scene])
    tensors = torch.from_numpy(batch).permute(0, 3, 1, 2)
    for many in ([scene, scene], (scene, scene), batch, tensors, (x for x in batch), map(np.asarray, batch)):
        inputs, single = as_inputs(many)
        assert not single
        assert [read_image(one).shape for one in inputs] == [scene.shape] * 2
    for one in (scene, "a.jpg", Path("a.jpg"), b"data", Image.fromarray(scene), tensors[0], scene[..., 0]):
        inputs, single = as_inputs(one)
        assert single
        assert len(inputs) == 1
        assert inputs[0] is one
    path = tmp_path / "picture.bin"
    path.write_bytes(b"a\nb\n")
    with path.open("rb") as stream:
        assert as_inputs(stream) == ([stream], True)
    assert as_inputs(iter(()))[1] is False


def test_a_batch_of_a_wrong_type_or_shape_is_an_image_error(scene):
    with pytest.raises(ImageError, match="dtype int64; expected uint8"):
        as_inputs(np.stack([scene, scene]).astype(np.int64))
    with pytest.raises(ImageError, match=r"expected \(H, W\), \(H, W, 1"):
        as_inputs(np.zeros((2, 3, 30, 30), np.uint8))
    with pytest.raises(ImageError, match=r"expected \(3, H, W\) or a batch"):
        as_inputs(torch.zeros(2, 30, 30, 3))


def test_pictures_in_a_folder_are_found_sorted_and_only_they(tmp_path):
    for name in ("b.jpg", "a/z.PNG", "a/notes.txt", "c.jpeg", "a/b/x.webp", "jpg", "d.jpg.part", "e.tiff"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "folder.jpg").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in find_pictures(tmp_path)]
    assert found == ["a/b/x.webp", "a/z.PNG", "b.jpg", "c.jpeg", "e.tiff"]
    assert find_pictures(str(tmp_path / "a" / "b")) == [tmp_path / "a" / "b" / "x.webp"]


def test_hidden_files_are_left_out_and_links_followed_but_not_in_a_circle(tmp_path):
    for name in ("album/b.jpg", "album/._b.jpg", "album/.thumbnails/b.jpg", "album/sub/a.png", "other/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    album = tmp_path / "album"
    for link, target in {
        "album/sub/up": album,
        "album/other": tmp_path / "other",
        "other/back": album,
        "album/d.jpg": tmp_path / "other" / "c.jpg",
        "album/self": album / "self",
    }.items():
        (tmp_path / link).symlink_to(target)
    names = ["b.jpg", "d.jpg", "other/c.jpg", "sub/a.png"]
    assert list(names_below(album)) == names
    assert find_pictures(album) == [album / name for name in names]
    (tmp_path / ".hidden").symlink_to(album)
    assert list(names_below(tmp_path / ".hidden", [".png"])) == ["sub/a.png"]


def test_gray_is_luma_and_gray_stays_gray(scene):
    expected = scene @ np.array([0.299, 0.587, 0.114])
    assert np.abs(to_gray(scene) - expected).max() <= 0.6
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(to_gray(read_image(gray)), gray)
