"""Regions and label maps drawn over their photograph."""

from __future__ import annotations

from collections.abc import Sequence

import PIL.Image
import torch
from jaxtyping import Bool, Float
from PIL import ImageDraw
from torch import Tensor

from closeup._types import IGNORE, Boxes, ImageLike, LabelMap, Masks
from closeup.errors import InputError
from closeup.geometry import areas, masks_to_boxes
from closeup.viz.canvas import borders, enlarged, grown, paint, repeated, stroke
from closeup.viz.labels import label_classes, label_regions
from closeup.viz.legend import with_legend
from closeup.viz.palette import Colour, name_colours

MIN_SIDE = 384
"""Smaller pictures are enlarged by a whole factor until their longer side has this many pixels."""

HALO: Colour = (20, 20, 24)
WHITE: Colour = (255, 255, 255)


def draw_segmentation(
    image: ImageLike,
    label_map: LabelMap,
    names: Sequence[str],
    *,
    alpha: float = 0.6,
    labels: bool = True,
    legend: bool = False,
    colours: Sequence[Colour] | None = None,
    min_side: int = MIN_SIDE,
) -> PIL.Image.Image:
    """Return the image with every class painted over it, white borders, and each name at its thickest place.

    ``label_map`` has the image's size and indexes ``names``; pixels of IGNORE stay as they are. With
    ``labels`` a name is written once, where its class is thick enough to carry it; with ``legend`` all
    names that occur stand below, in a strip that makes the picture higher. Apart from that the picture
    has the image's size times the whole factor that ``min_side`` asks for (0: none).

    Raises:
        InputError: where the label map has another size than the image or indexes beyond the names, or
            names and colours are not equally many.
    """
    picture, factor = enlarged(image, min_side)
    _check_label_map(label_map, (picture.height // factor, picture.width // factor), len(names))
    label_map = repeated(label_map.cpu().long(), factor)
    colours = name_colours(names) if colours is None else colours
    if len(colours) != len(names):
        raise InputError(f"each name needs one colour, but there are {len(names)} names and {len(colours)} colours.")
    picture = paint(picture, label_map, colours, alpha)
    edges = grown(borders(label_map), stroke(*picture.size) // 2 - 1)
    picture = paint(picture, torch.where(edges, 0, IGNORE), [WHITE], 0.85)
    present = [i for i in torch.unique(label_map).tolist() if i != IGNORE]
    if labels:
        label_classes(picture, label_map, [(i, names[i], colours[i]) for i in present])
    if legend:
        return with_legend(picture, [names[i] for i in present], colours=[colours[i] for i in present])
    return picture


def draw_regions(
    image: ImageLike,
    *,
    boxes: Boxes | None = None,
    masks: Masks | None = None,
    texts: Sequence[str] | None = None,
    scores: Float[Tensor, " regions"] | Sequence[float] | None = None,
    alpha: float = 0.5,
    colours: Sequence[Colour] | None = None,
    min_side: int = MIN_SIDE,
) -> PIL.Image.Image:
    """Return the image with its regions outlined, masks filled, and a label for each.

    Give boxes, masks, or both in one order. ``texts`` are the regions' words, which also choose their
    colours unless ``colours`` does; ``scores`` are shown after them with two decimals. Small regions
    lie over large ones, and labels avoid each other as far as there is room. The picture has the
    image's size times the whole factor that ``min_side`` asks for (0: none).

    Raises:
        InputError: where there are neither boxes nor masks, counts differ, a box is not finite, or masks
            have another size than the image.
    """
    count = _count(boxes, masks, texts, scores, colours)
    picture, factor = enlarged(image, min_side)
    if masks is not None and masks.shape[1:] != (picture.height // factor, picture.width // factor):
        raise InputError(
            f"masks are {masks.shape[1]} x {masks.shape[2]} but the image is {picture.height // factor} x "
            f"{picture.width // factor} (height x width); masks lie on the original image."
        )
    frames = _frames(boxes, masks) * factor
    words = list(texts) if texts is not None else [""] * count
    colours = list(colours) if colours is not None else _region_colours(words)
    size = areas(frames)
    order = size.argsort(descending=True, stable=True).tolist()
    if masks is not None:
        shown = [repeated(masks[i].cpu(), factor) for i in order]
        picture = _paint_masks(picture, shown, [colours[i] for i in order], alpha)
    if boxes is not None:
        for i in order:
            _outline(picture, frames[i].tolist(), colours[i])
    captions = [_caption(words[i], None if scores is None else float(scores[i])) for i in range(count)]
    seen = [i for i in order if float(size[i]) > 0]
    label_regions(picture, [(captions[i], frames[i].tolist(), colours[i]) for i in seen])
    return picture


def _check_label_map(label_map: LabelMap, size: tuple[int, int], names: int) -> None:
    if label_map.shape != size:
        raise InputError(
            f"the label map is {tuple(label_map.shape)} but the image is {size} (height, width); "
            "resize the scores to the image before the argmax."
        )
    low, high = int(label_map.min()), int(label_map.max())
    if low < IGNORE or high >= names:
        raise InputError(f"the label map holds {low} to {high} but there are {names} names and {IGNORE} for none.")


def _count(
    boxes: Boxes | None,
    masks: Masks | None,
    texts: Sequence[str] | None,
    scores: Tensor | Sequence[float] | None,
    colours: Sequence[Colour] | None,
) -> int:
    given = {"boxes": boxes, "masks": masks, "texts": texts, "scores": scores, "colours": colours}
    counts = {name: len(value) for name, value in given.items() if value is not None}
    if boxes is None and masks is None:
        raise InputError("there is nothing to draw: give boxes, masks, or both.")
    if len(set(counts.values())) > 1:
        raise InputError(f"regions, texts and scores must be equally many, but there are {counts}.")
    return next(iter(counts.values()))


def _frames(boxes: Boxes | None, masks: Masks | None) -> Boxes:
    if boxes is None:
        return masks_to_boxes(masks.cpu()) if masks is not None else torch.zeros(0, 4)
    for i in torch.nonzero(~boxes.isfinite().all(dim=1)).flatten().tolist():
        raise InputError(f"box {i} is {boxes[i].tolist()}; a box is four finite numbers, x0, y0, x1, y1 in pixels.")
    return boxes.detach().float().cpu()


def _region_colours(words: Sequence[str]) -> list[Colour]:
    return name_colours([word or f"region {i}" for i, word in enumerate(words)])


def _caption(word: str, score: float | None) -> str:
    return word if score is None else f"{word} {score:.2f}".strip()


def _paint_masks(
    picture: PIL.Image.Image, masks: Sequence[Bool[Tensor, "height width"]], colours: Sequence[Colour], alpha: float
) -> PIL.Image.Image:
    """Fill the masks and line their inner rims; where masks overlap the last one is seen."""
    owner = torch.full((picture.height, picture.width), IGNORE)
    for index, mask in enumerate(masks):
        owner[mask] = index
    edges = borders(owner)
    rims = grown(edges, stroke(*picture.size) - 1)
    picture = paint(picture, owner, colours, alpha)
    picture = paint(picture, torch.where(edges & (owner == IGNORE), 0, IGNORE), [HALO], 0.6)
    return paint(picture, torch.where(rims, owner, IGNORE), colours, 1.0)


def _outline(picture: PIL.Image.Image, box: Sequence[float], colour: Colour) -> None:
    width = stroke(*picture.size)
    left, top = max(round(box[0]), 0), max(round(box[1]), 0)
    right, bottom = min(round(box[2]), picture.width) - 1, min(round(box[3]), picture.height) - 1
    if right < left or bottom < top:
        return
    draw = ImageDraw.Draw(picture)
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=HALO, width=1)
    draw.rectangle((left, top, right, bottom), outline=colour, width=width)
