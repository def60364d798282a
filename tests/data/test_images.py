from __future__ import annotations

import io
import os
import struct
import threading
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from PIL import ImageCms

from closeup.data.images import array_to_image, list_images, open_image
from closeup.errors import ImageError, InputError


def gradient(height: int = 24, width: int = 40) -> np.ndarray:
    rows, cols = np.mgrid[0:height, 0:width]
    return np.stack([rows * 10 % 256, cols * 6 % 256, (rows + cols) % 256], axis=2).astype(np.uint8)


def save(picture: PIL.Image.Image, path: Path, **options: object) -> Path:
    picture.save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".webp"])
def test_lossless_rgb_files_come_back_exactly(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == ".webp" else {}
    path = save(PIL.Image.fromarray(gradient()), tmp_path / f"x{suffix}", **options)
    for image in (path, str(path), PIL.Image.open(path), gradient()):
        opened = open_image(image)
        assert opened.mode == "RGB"
        assert np.array_equal(np.asarray(opened), gradient())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(tmp_path: Path, orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[274] = orientation
    path = save(PIL.Image.fromarray(gradient()), tmp_path / "x.png", exif=exif)
    with PIL.Image.open(path) as raw:
        expected = np.asarray(PIL.ImageOps.exif_transpose(raw))
    opened = open_image(path)
    assert np.array_equal(np.asarray(opened), expected)
    assert np.array_equal(np.asarray(open_image(opened)), expected)


def test_broken_exif_is_ignored_in_silence(tmp_path: Path) -> None:
    path = save(
        PIL.Image.fromarray(gradient()), tmp_path / "x.jpg", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff\x01"
    )
    assert open_image(path).size == (40, 24)


def test_grey_bilevel_and_palette(tmp_path: Path) -> None:
    grey = gradient()[..., 0]
    assert np.array_equal(np.asarray(open_image(save(PIL.Image.fromarray(grey), tmp_path / "l.png")))[..., 2], grey)
    bilevel = open_image(save(PIL.Image.fromarray(grey > 100), tmp_path / "1.png"))
    assert np.array_equal(np.asarray(bilevel)[..., 0], np.where(grey > 100, 255, 0))
    palette = PIL.Image.fromarray(gradient()).quantize(16)
    assert np.array_equal(np.asarray(open_image(save(palette, tmp_path / "p.png"))), np.asarray(palette.convert("RGB")))


def test_cmyk_without_profile_is_the_plain_formula(tmp_path: Path) -> None:
    cmyk = PIL.Image.fromarray(gradient()).convert("CMYK")
    opened = open_image(save(cmyk, tmp_path / "x.tif"))
    assert np.array_equal(np.asarray(opened), np.asarray(cmyk.convert("RGB")))


def test_cmyk_with_a_profile_of_another_space_falls_back(tmp_path: Path) -> None:
    cmyk = PIL.Image.fromarray(gradient()).convert("CMYK")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for icc in (profile, b"not a profile"):
        opened = open_image(save(cmyk, tmp_path / "x.tif", icc_profile=icc))
        assert np.array_equal(np.asarray(opened), np.asarray(cmyk.convert("RGB")))


def test_lab_becomes_rgb(tmp_path: Path) -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    picture = ImageCms.profileToProfile(PIL.Image.fromarray(gradient()), srgb, lab, outputMode="LAB")
    assert picture is not None
    opened = np.asarray(open_image(save(picture, tmp_path / "x.tif"))).astype(int)
    assert np.abs(opened - gradient()).mean() < 4


def test_sixteen_bit_is_scaled_not_clipped(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 24 * 40).reshape(24, 40).astype(np.uint16)
    expected = np.rint(deep / 257).astype(np.uint8)
    for name in ("x.png", "x.tif"):
        opened = np.asarray(open_image(save(PIL.Image.fromarray(deep), tmp_path / name)))
        assert np.array_equal(opened, np.repeat(expected[..., None], 3, axis=2))


def test_sixteen_bit_big_endian(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 24 * 40).reshape(24, 40).astype(np.uint16)
    path = save(PIL.Image.frombytes("I;16B", (40, 24), deep.astype(">u2").tobytes()), tmp_path / "x.tif")
    assert np.array_equal(np.asarray(open_image(path))[..., 0], np.rint(deep / 257).astype(np.uint8))


@pytest.mark.parametrize(("low", "high", "top"), [(0, 255, 255), (0, 65535, 65535), (0, 300, 65535)])
def test_thirty_two_bit_integers_take_the_smallest_range_that_holds_them(low: int, high: int, top: int) -> None:
    values = np.linspace(low, high, 960).reshape(24, 40).astype(np.int32)
    opened = np.asarray(open_image(PIL.Image.fromarray(values)))[..., 0]
    assert np.array_equal(opened, np.rint(values * (255 / top)).astype(np.uint8))


def test_integers_and_floats_out_of_every_range_are_stretched() -> None:
    for values in (np.linspace(-5, 100000, 960).astype(np.int32), np.linspace(-1, 1, 960).astype(np.float32)):
        opened = np.asarray(open_image(PIL.Image.fromarray(values.reshape(24, 40))))
        assert (opened.min(), opened.max()) == (0, 255)


def test_float_in_the_unit_interval_and_as_bytes(tmp_path: Path) -> None:
    unit = np.linspace(0, 1, 960).reshape(24, 40).astype(np.float32)
    path = save(PIL.Image.fromarray(unit), tmp_path / "x.tif")
    assert np.array_equal(np.asarray(open_image(path))[..., 1], np.rint(unit.astype(float) * 255).astype(np.uint8))
    bytes_as_float = gradient()[..., 1].astype(np.float32)
    opened = np.asarray(open_image(PIL.Image.fromarray(bytes_as_float)))[..., 1]
    assert np.array_equal(opened, gradient()[..., 1])


def test_float_with_nan_is_refused() -> None:
    values = np.full((4, 4), np.nan, dtype=np.float32)
    with pytest.raises(ImageError, match="NaN"):
        open_image(PIL.Image.fromarray(values))


def test_transparency_is_laid_on_white_or_what_is_asked(tmp_path: Path) -> None:
    rgba = np.dstack([gradient(), np.zeros((24, 40), np.uint8)])
    rgba[:12, :, 3] = 255
    path = save(PIL.Image.fromarray(rgba), tmp_path / "x.png")
    opened = np.asarray(open_image(path))
    assert np.array_equal(opened[:12], gradient()[:12])
    assert (opened[12:] == 255).all()
    assert (np.asarray(open_image(path, background=(0, 0, 0)))[12:] == 0).all()


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBa", "La"])
def test_other_transparent_modes_show_white_where_nothing_is(mode: str) -> None:
    clear = PIL.Image.new("RGBA", (5, 4), (10, 20, 30, 0))
    steps = {"LA": ["LA"], "PA": ["P", "PA"], "RGBa": ["RGBa"], "La": ["LA", "La"]}[mode]
    for step in steps:
        clear = clear.convert(step)
    if mode == "PA":
        clear.putalpha(0)
    assert (np.asarray(open_image(clear)) == 255).all()


def test_transparent_palette_and_colour_key(tmp_path: Path) -> None:
    palette = PIL.Image.new("P", (5, 4), 1)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    gif = save(palette, tmp_path / "x.gif", transparency=1)
    png = save(palette, tmp_path / "x.png", transparency=bytes([255, 0]))
    key = save(PIL.Image.new("RGB", (5, 4), (9, 9, 9)), tmp_path / "key.png", transparency=(9, 9, 9))
    for path in (gif, png, key):
        assert (np.asarray(open_image(path)) == 255).all()


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_animations_and_stacks_give_their_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [PIL.Image.new("RGB", (8, 6), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if suffix == ".webp" else {}
    path = save(frames[0], tmp_path / f"x{suffix}", save_all=True, append_images=frames[1:], **options)
    assert (np.asarray(open_image(path)) == (255, 0, 0)).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif"])
def test_truncated_files_are_refused_or_accepted(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = save(PIL.Image.fromarray(noise), tmp_path / f"x{suffix}")
    whole = np.asarray(open_image(path))
    if suffix == ".tif":  # its directory lies at the end: a cut file has no header, so cut out of the middle
        path.write_bytes(tiff_without_its_last_rows(path.read_bytes()))
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=r"(?s)x\.\w+: the image is truncated.*truncated='accept'"):
        open_image(path)
    part = np.asarray(open_image(path, truncated="accept"))
    assert part.shape == whole.shape
    first = slice(-12, None) if suffix == ".bmp" else slice(0, 12)
    assert np.array_equal(part[first], whole[first])
    with PIL.Image.open(path) as lazy, pytest.raises(ImageError, match="truncated"):
        open_image(lazy)


def tiff_without_its_last_rows(data: bytes) -> bytes:
    (offset,) = struct.unpack("<I", data[4:8])
    if offset < len(data) // 2:
        return data[: len(data) // 2]
    pixels = data[8:offset]
    directory = bytearray(data[offset:])
    count = struct.unpack("<H", directory[:2])[0]
    shift = offset - 8
    for entry in range(count):
        at = 2 + 12 * entry
        tag, kind, number, value = struct.unpack("<HHII", directory[at : at + 12])
        size = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8}[kind] * number
        if size > 4:
            directory[at + 8 : at + 12] = struct.pack("<I", value - shift)
        elif tag == 273:
            directory[at + 8 : at + 12] = struct.pack("<I", len(directory) + 8)
    return data[:4] + struct.pack("<I", 8) + bytes(directory) + pixels[: len(pixels) // 2]


def test_empty_missing_folder_and_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not an image at all")
    (tmp_path / "phone.heic").write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(200))
    with pytest.raises(ImageError, match=r"empty\.jpg: the file is empty \(0 bytes\)"):
        open_image(tmp_path / "empty.jpg")
    with pytest.raises(ImageError, match="no such image file"):
        open_image(tmp_path / "missing.jpg")
    with pytest.raises(ImageError, match="Download it first"):
        open_image("https://example.org/cat.jpg")
    with pytest.raises(ImageError, match="is a folder"):
        open_image(tmp_path)
    with pytest.raises(ImageError, match=r"text\.jpg: not an image"):
        open_image(tmp_path / "text.jpg")
    with pytest.raises(ImageError, match="pillow-heif"):
        open_image(tmp_path / "phone.heic")


def test_a_decompression_bomb_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(PIL.Image.new("L", (64, 64)), tmp_path / "x.png")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 3000)
    assert open_image(path).size == (64, 64), "up to twice the limit PIL only warns, and the warning is silenced"
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="MAX_IMAGE_PIXELS"):
        open_image(path)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_arrays_of_another_form_are_named(array: np.ndarray) -> None:
    with pytest.raises(ImageError) as caught:
        array_to_image(array)
    assert str(array.dtype) in str(caught.value)
    assert str(array.shape) in str(caught.value)


def test_arrays_with_odd_strides() -> None:
    flipped = gradient()[::-1, ::2]
    assert np.array_equal(np.asarray(open_image(flipped)), flipped)


def test_the_callers_picture_is_left_alone() -> None:
    picture = PIL.Image.fromarray(gradient())
    picture.info["note"] = "mine"
    open_image(picture).putpixel((0, 0), (1, 2, 3))
    assert np.array_equal(np.asarray(picture), gradient())
    assert picture.info == {"note": "mine"}


def test_many_threads_leave_the_warning_filters_as_they_were(tmp_path: Path) -> None:
    path = save(PIL.Image.fromarray(gradient()), tmp_path / "x.jpg")
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [open_image(path) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_jpeg_agrees_with_plain_pillow(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    PIL.Image.fromarray(gradient()).save(buffer, "JPEG", progressive=True)
    (tmp_path / "x.jpg").write_bytes(buffer.getvalue())
    with PIL.Image.open(buffer) as expected:
        assert np.array_equal(np.asarray(open_image(tmp_path / "x.jpg")), np.asarray(expected))


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_folders_are_searched_recursively_and_sorted_as_people_count(tmp_path: Path) -> None:
    fill(tmp_path, "img10.jpg", "img2.PNG", "b/img1.webp", "a/3.jpg", "notes.txt", ".hidden.jpg", ".cache/x.jpg")
    names = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert names == ["a/3.jpg", "b/img1.webp", "img2.PNG", "img10.jpg"]
    assert list_images(str(tmp_path)) == list_images([tmp_path])


def test_files_and_globs_keep_the_order_given_and_come_once(tmp_path: Path) -> None:
    fill(tmp_path, "z.jpg", "a.jpg", "deep/b.png", "plan.dat")
    sources: list[str | Path] = [tmp_path / "z.jpg", str(tmp_path / "**" / "*.*"), tmp_path / "plan.dat"]
    names = [path.name for path in list_images(sources)]
    assert names == ["z.jpg", "a.jpg", "b.png", "plan.dat"]


def test_a_file_with_brackets_in_its_name_is_no_glob(tmp_path: Path) -> None:
    fill(tmp_path, "a[1].jpg")
    assert list_images(tmp_path / "a[1].jpg") == [tmp_path / "a[1].jpg"]


def test_links_to_folders_are_followed_but_not_round_in_circles(tmp_path: Path) -> None:
    fill(tmp_path, "far/x.jpg", "near/y.jpg")
    os.symlink(tmp_path / "far", tmp_path / "near" / "far")
    os.symlink(tmp_path / "near", tmp_path / "near" / "self")
    assert [path.name for path in list_images(tmp_path / "near")] == ["x.jpg", "y.jpg"]


def test_listing_errors_say_what_was_looked_for(tmp_path: Path) -> None:
    fill(tmp_path, "only/phone.HEIC", "text/a.txt")
    with pytest.raises(InputError, match="no such file or folder"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no images in this folder.*\.jpg"):
        list_images(tmp_path / "text")
    with pytest.raises(InputError, match=r"1 HEIC files.*pillow-heif"):
        list_images(tmp_path / "only")
    with pytest.raises(InputError, match="pattern matches no image"):
        list_images(str(tmp_path / "text" / "*"))
    with pytest.raises(InputError, match="empty"):
        list_images([])
