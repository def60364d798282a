"""Pictures in: any file, PIL picture or array becomes an upright RGB picture, or a clear error."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import PIL.Image
import PIL.ImageFile

from closeup._types import ImageLike
from closeup.data.pixels import WHITE, to_rgb
from closeup.errors import ImageError, InputError

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm", ".pgm")
"""What a folder is searched for; a file named outright may have any suffix."""

HEIC_SUFFIXES = (".heic", ".heif")

_HEIC_ADVICE = (
    "HEIC pictures need one more package: pip install pillow-heif, then call pillow_heif.register_heif_opener()"
    " before this; or convert them to JPEG."
)

# The EXIF orientation tag (274) says how the camera was held; these turns set the picture upright.
_TURNS = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}


def open_image(
    image: ImageLike,
    *,
    truncated: Literal["refuse", "accept"] = "refuse",
    background: tuple[int, int, int] = WHITE,
) -> PIL.Image.Image:
    """Return a new RGB picture, upright by its EXIF orientation; the first frame of an animation.

    Other modes are converted as `closeup.data.pixels.to_rgb` says; transparency is laid on ``background``.
    With ``truncated="accept"`` a file that ends too early gives what could be decoded, the rest black.

    Raises:
        ImageError: the file is missing, empty, broken, of an unknown format or too large to be safe, or the
            array is not uint8 of height x width x 3.
    """
    if isinstance(image, np.ndarray):
        return array_to_image(image)
    if isinstance(image, PIL.Image.Image):
        return _finish(image, truncated, background, "the PIL picture")
    if isinstance(image, str | Path):
        return _open_file(Path(image).expanduser(), truncated, background)
    raise ImageError(f"An image is a path, a PIL picture or a uint8 array, not {type(image).__name__}.")


def array_to_image(array: np.ndarray) -> PIL.Image.Image:
    """Return the RGB picture that a uint8 array of height x width x 3 holds.

    Raises:
        ImageError: the array has another type or shape.
    """
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise ImageError(
            f"An image array is uint8 of height x width x 3, in RGB order; received {array.dtype} of shape"
            f" {tuple(array.shape)}. Scale values to 0..255, cast, and put the channels last."
        )
    return PIL.Image.fromarray(array)


def list_images(sources: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the image files that files, folders and globs name; folders are searched recursively.

    Files keep the order of the sources; inside a folder or glob they are sorted as people count (2 before
    10). Each file comes once; hidden files are passed over.

    Raises:
        InputError: a path does not exist, or a folder or glob holds no image.
    """
    each = [sources] if isinstance(sources, str | Path) else sources
    if not each:
        raise InputError("No images: the list of files, folders and globs is empty.")
    return list(dict.fromkeys(path for source in each for path in _list_source(source)))


def natural_key(path: Path) -> list[list[int | str]]:
    """Return a sort key in which numbers inside names count as numbers."""
    return [[int(bit) if bit.isdecimal() else bit for bit in re.split(r"(\d+)", part)] for part in path.parts]


def _open_file(path: Path, truncated: str, background: tuple[int, int, int]) -> PIL.Image.Image:
    _check_file(path)
    try:
        with _quiet():
            opened = PIL.Image.open(path)
    except PIL.UnidentifiedImageError as error:
        raise ImageError(f"{path}: {_unknown_format(path)}") from error
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(f"{path}: {_too_large(error)}") from error
    except Exception as error:  # PIL's readers raise nearly anything on a broken header
        raise ImageError(f"{path}: the image cannot be read ({_reason(error)}).") from error
    with opened:
        return _finish(opened, truncated, background, str(path))


def _finish(picture: PIL.Image.Image, truncated: str, background: tuple[int, int, int], name: str) -> PIL.Image.Image:
    if 0 in picture.size:
        raise ImageError(f"{name}: the image has no pixels (width x height is {picture.width} x {picture.height}).")
    turn = _turn(picture)
    _decode(picture, truncated, name)
    try:
        rgb = to_rgb(picture, background)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    return rgb if turn is None else rgb.transpose(turn)


def _decode(picture: PIL.Image.Image, truncated: str, name: str) -> None:
    try:
        picture.load()
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(f"{name}: {_too_large(error)}") from error
    except Exception as error:  # PIL's decoders raise nearly anything on broken data
        if truncated == "accept" and _keep_what_was_decoded(picture):
            return
        raise ImageError(
            f"{name}: the image is truncated or broken ({_reason(error)}). Replace the file, or pass"
            " truncated='accept' to use what can be decoded."
        ) from error


def _keep_what_was_decoded(picture: PIL.Image.Image) -> bool:
    # PIL decodes in place and forgets its list of tiles last; dropping that list accepts the part that is there.
    # The documented switch, ImageFile.LOAD_TRUNCATED_IMAGES, is global and would change other threads' reading.
    if not isinstance(picture, PIL.ImageFile.ImageFile):
        return False
    picture.tile = []
    try:
        picture.load()
        picture.getpixel((0, 0))
    except Exception:
        return False
    return True


def _turn(picture: PIL.Image.Image) -> PIL.Image.Transpose | None:
    try:
        with _quiet():
            return _TURNS.get(picture.getexif().get(274, 1))
    except Exception:  # broken metadata is no reason to refuse a picture: it is taken as upright
        return None


_WARNINGS_LOCK = threading.Lock()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence PIL about odd metadata, which leaves the pixels whole; catch_warnings alone is not thread-safe."""
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise ImageError(f"{path} is a folder; pass an image file, or list it with list_images.")
    if not path.exists():
        remote = " Download it first: images are read from disk only." if ":/" in str(path) else ""
        raise ImageError(f"{path}: no such image file.{remote}")
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: the file is empty (0 bytes).")


def _unknown_format(path: Path) -> str:
    if path.suffix.lower() in HEIC_SUFFIXES:
        return _HEIC_ADVICE
    return "not an image, or of a format that Pillow does not read. Convert it to JPEG or PNG."


def _too_large(error: Exception) -> str:
    return f"{error} Shrink the image, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file."


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _list_source(source: str | Path) -> list[Path]:
    path = Path(source).expanduser()
    if path.is_dir():
        return _list_folder(path)
    if path.exists():
        return [path]
    if not glob.has_magic(str(source)):
        raise InputError(f"{source}: no such file or folder.")
    found = [Path(match) for match in glob.glob(str(path), recursive=True)]
    images = _only_images(match for match in found if match.is_file())
    if not images:
        raise InputError(f"{source}: the pattern matches no image. {_looked_for(found)}")
    return images


def _list_folder(folder: Path) -> list[Path]:
    files = list(_walk(folder))
    images = _only_images(files)
    if not images:
        raise InputError(f"{folder}: no images in this folder or below it. {_looked_for(files)}")
    return images


def _walk(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, through links to folders too, but into no folder twice."""
    visited: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        visited.add(_real(root))
        folders[:] = [name for name in folders if not name.startswith(".") and _real(root, name) not in visited]
        yield from (Path(root, name) for name in files if not name.startswith("."))


def _real(*parts: str) -> str:
    return os.path.realpath(os.path.join(*parts))


def _only_images(files: Iterable[Path]) -> list[Path]:
    wanted = _suffixes()
    return sorted((path for path in files if path.suffix.lower() in wanted), key=natural_key)


def _suffixes() -> set[str]:
    registered = PIL.Image.registered_extensions()
    return {*SUFFIXES, *(suffix for suffix in HEIC_SUFFIXES if suffix in registered)}


def _looked_for(files: Iterable[Path]) -> str:
    heic = sum(path.suffix.lower() in HEIC_SUFFIXES for path in files)
    advice = f" It holds {heic} HEIC files. {_HEIC_ADVICE}" if heic and ".heic" not in _suffixes() else ""
    return f"Looked for {' '.join(sorted(_suffixes()))}.{advice}"
