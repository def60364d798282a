"""Any PIL mode to RGB: CMYK, 16 bit, float, grey, palette, transparency."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
from jaxtyping import Num, UInt8
from PIL import ImageCms

from closeup.errors import ImageError

WHITE = (255, 255, 255)
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def to_rgb(picture: PIL.Image.Image, background: tuple[int, int, int] = WHITE) -> PIL.Image.Image:
    """Return a new RGB picture without metadata.

    Transparent pixels are laid on ``background``: white, because cut-out product pictures and drawings are
    made for a white page; PIL's own conversion would show the hidden colour, often black. CMYK goes through
    its embedded profile where there is a sound one. Colour profiles of RGB pictures are left unread, as CLIP's
    own training did.

    Raises:
        ImageError: a float picture holds NaN or infinity.
    """
    if picture.mode in _DEEP_MODES:
        rgb = PIL.Image.fromarray(deep_to_bytes(np.asarray(picture), picture.mode)).convert("RGB")
    elif picture.has_transparency_data:
        rgb = _flatten(picture, background)
    elif picture.mode in ("CMYK", "LAB"):
        rgb = _manage_colour(picture)
    else:
        rgb = picture.convert("RGB")
    rgb.info.clear()
    return rgb


def deep_to_bytes(values: Num[np.ndarray, "height width"], mode: str) -> UInt8[np.ndarray, "height width"]:
    """Scale grey values of more than 8 bits to 0..255, rounded, never clipped.

    16-bit modes are divided by 257, so that 65535 becomes 255. The modes I and F do not say their range:
    it is the smallest of 0..1 (F only), 0..255 and 0..65535 (I only) that holds every value, else the
    picture's own minimum to maximum.

    Raises:
        ImageError: a value is NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise ImageError("A float picture holds NaN or infinity; replace them before use.")
    grey = values.astype(np.float64)
    low, high = float(grey.min()), float(grey.max())
    ranges = {"F": (1.0, 255.0), "I": (255.0, 65535.0)}.get(mode, (65535.0,))
    top = next((top for top in ranges if low >= 0 and high <= top), None)
    if top is None:
        grey, top = grey - low, max(high - low, 1e-300)
    return np.rint(grey * (255.0 / top)).astype(np.uint8)


def _flatten(picture: PIL.Image.Image, background: tuple[int, int, int]) -> PIL.Image.Image:
    # PIL converts premultiplied grey ("La") only to its straight form.
    straight = picture.convert("LA") if picture.mode == "La" else picture
    page = PIL.Image.new("RGBA", picture.size, (*background, 255))
    page.alpha_composite(straight.convert("RGBA"))
    return page.convert("RGB")


def _manage_colour(picture: PIL.Image.Image) -> PIL.Image.Image:
    try:
        if picture.mode == "LAB":
            source = ImageCms.createProfile("LAB")
        else:
            source = ImageCms.ImageCmsProfile(io.BytesIO(picture.info["icc_profile"])).profile
        managed = ImageCms.profileToProfile(picture, ImageCms.ImageCmsProfile(source), _SRGB, outputMode="RGB")
    except (KeyError, OSError, ValueError, TypeError, ImageCms.PyCMSError):
        # No profile, or one that does not fit: the plain formula is what every other reader would show.
        return picture.convert("RGB")
    if managed is None:
        return picture.convert("RGB")
    return managed


_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
