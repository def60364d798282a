"""Objects of images: boxes and words, by a trained detector, or by a CLIP alone on boxes that are given or found."""

from __future__ import annotations

from dataclasses import dataclass

import PIL.Image
import torch
from jaxtyping import Float, Int
from torch import Tensor

from closeup._types import Boxes, ImageLike, Labels, Masks
from closeup.data.images import open_image
from closeup.errors import InputError
from closeup.geometry import Placement
from closeup.heads.mask_head import painted
from closeup.heads.rpn import Proposals, Proposer
from closeup.heads.saved import AnyDetector
from closeup.match import Matcher, probabilities, score
from closeup.match.detections import Detections, Objectness, Suppression, select, with_objectness
from closeup.models.clip import Clip
from closeup.models.encode_regions import BoxTable
from closeup.models.preprocess import Size
from closeup.models.routes import Route
from closeup.predict.matching import crop_of, scale_of, seen_by, told_of, wants_unit
from closeup.predict.provenance import Provenance, as_size, describe
from closeup.predict.result import Arrays, LabelledResult, Regions
from closeup.predict.words import Words, as_bank, detector_bank
from closeup.regions.propose import propose
from closeup.text import Templates
from closeup.viz import draw_regions, name_colours

THRESHOLD = 0.05
LIMIT = 100


@dataclass(frozen=True, slots=True, eq=False)
class DetectionResult(LabelledResult):
    """What was found in an image, best first: ``boxes`` in its pixels (xyxy), a label and a score each.

    A detector's scores are probabilities, F-ViT's fused ones; those of a CLIP alone are the softmax over the words.
    ``outlines`` are grids over the boxes, the probability of each cell that it is part of the object; None where no
    head gives them.
    """

    image: ImageLike
    size: tuple[int, int]
    boxes: Boxes
    labels: Labels
    scores: Float[Tensor, " count"]
    names: tuple[str, ...]
    provenance: Provenance
    outlines: Float[Tensor, "count side side"] | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def words(self) -> tuple[str, ...]:
        """The word of every object."""
        return tuple(self.names[label] for label in self.labels.tolist())

    @property
    def masks(self) -> Masks | None:
        """The objects' masks on the image, painted anew at each call; None where there are no outlines."""
        return None if self.outlines is None else painted(self.outlines, self.boxes, self.size)

    def picture(self) -> PIL.Image.Image:
        """Return the image with every object outlined and labelled with its word and score."""
        colours = name_colours(self.names)
        return draw_regions(
            self.image,
            boxes=self.boxes,
            masks=self.masks,
            texts=self.words,
            scores=self.scores,
            colours=[colours[label] for label in self.labels.tolist()],
        )

    def labelled(self) -> Regions:
        """Return boxes, masks where there are outlines, labels and scores."""
        return self.boxes, self.masks, self.labels, self.scores

    def arrays(self) -> Arrays:
        """Return ``boxes``, ``labels`` and ``scores``, and ``outlines`` where there are some."""
        names = ("boxes", "labels", "scores", *(() if self.outlines is None else ("outlines",)))
        return {name: getattr(self, name).numpy() for name in names}


@torch.inference_mode()
def detect(
    detector: AnyDetector,
    image: ImageLike,
    words: Words | None = None,
    *,
    templates: str | Templates | None = None,
    threshold: float = THRESHOLD,
    limit: int = LIMIT,
    suppression: Suppression | None = None,
) -> DetectionResult:
    """Return the objects of an image that a trained detector finds among some words, whichever they are.

    Without ``words`` they are those that it was made with. In F-ViT, words that it did not learn lean on the CLIP below
    it; DenseCLIP's detectors know their own words alone, any of them in any order, and no ``templates``.
    Scores above ``threshold`` count, at most ``limit`` of them; of boxes of one word that overlap the best one stays
    (``suppression``: None is the head's own, an IoU of 0.4 for F-ViT and 0.5 for the others).

    Raises:
        InputError: a threshold outside 0 to 1, a limit below 1, no words, one that is not in a closed list, or what is
            no image.
    """
    _check(threshold, limit)
    eyes, bank = detector.eyes, detector_bank(detector, words, templates)
    picture = open_image(image)
    canvas, placement = eyes.preprocess(picture, policy="longest-pad-corner", size=detector.size)
    (found,) = detector.find(
        canvas[None].to(eyes.device),
        shown_size(placement),
        bank,
        threshold=threshold,
        limit=limit,
        suppression=suppression,
    )
    boxes = placement.boxes_to_original(found.boxes.cpu())
    made = describe(
        eyes,
        bank,
        region_encoder=detector.head.kind,
        route=detector.head.route,
        image_size=as_size(eyes, detector.size),
        detector=detector.name,
        detector_fingerprint=detector.fingerprint,
        threshold=threshold,
        limit=limit,
    )
    outlines = None if found.outlines is None else found.outlines.cpu()
    return DetectionResult(
        image,
        (picture.height, picture.width),
        boxes,
        found.labels.cpu(),
        found.scores.cpu(),
        bank.names,
        made,
        outlines,
    )


@torch.inference_mode()
def propose_boxes(proposer: Proposer, image: ImageLike) -> Proposals:
    """Return the boxes of an image that a trained proposer holds for objects, best first, in the image's pixels.

    For ``detect_zero_shot``, which names them and weighs their objectness.
    """
    picture = open_image(image)
    canvas, placement = proposer.clip.preprocess(picture, policy="longest-pad-corner", size=proposer.size)
    (found,) = proposer.head.propose(canvas[None].to(proposer.clip.device), shown_size(placement))
    return Proposals(placement.boxes_to_original(found.boxes.cpu()), found.logits.cpu())


@torch.inference_mode()
def detect_zero_shot(
    clip: Clip,
    image: ImageLike,
    words: Words,
    *,
    boxes: BoxTable | None = None,
    logits: Float[Tensor, " boxes"] | None = None,
    objectness: Objectness = "sigmoid",
    how: str = "dense",
    templates: str | Templates | None = None,
    route: str | Route = "value",
    size: int | Size | None = None,
    threshold: float = THRESHOLD,
    limit: int = LIMIT,
    suppression: Suppression | None = None,
    matcher: Matcher | None = None,
) -> DetectionResult:
    """Return the objects of an image that a CLIP alone names, on boxes that are given or found without labels.

    A box scores its probability of a word, the softmax over the words; with ``logits``, a proposer's objectness, the
    geometric mean of the two (``match.with_objectness``). Each word keeps the best of boxes that overlap
    (``suppression``: None is hard, at an IoU of 0.5). Other arguments as in ``classify`` and ``detect``.

    Raises:
        InputError: as ``detect``, and for boxes that are none of the image, or not one logit for each.

    Source: RegionCLIP (arXiv 2112.09106), zero-shot inference; its code takes raw logits (``objectness="logit"``).
    """
    _check(threshold, limit)
    picture, bank = open_image(image), as_bank(clip, words, templates, matcher)
    given = propose(picture).boxes if boxes is None else torch.as_tensor(boxes, dtype=torch.float32).cpu()
    table = given if len(given) else torch.zeros(0, 4)
    if table.ndim != 2 or table.shape[1] != 4:
        raise InputError(f"Boxes are rows of x0, y0, x1, y1, not a table of {tuple(table.shape)}.")
    if logits is not None and len(logits) != len(table):
        raise InputError(f"{len(table)} boxes have {len(logits)} objectness logits. Give one for each.")
    (regions,) = seen_by(matcher, clip, how).encode_regions(
        [picture],
        boxes=[table],
        how=how,
        route=route,
        size=size,
        crop=crop_of(matcher, how, None),
        normalize=wants_unit(matcher),
    )
    shares = probabilities(score(regions.cpu(), bank, matcher), scale_of(matcher, clip))
    if logits is not None:
        shares = with_objectness(shares, logits, objectness)
    kept = select(table, shares, threshold=threshold, limit=limit, suppression=suppression)
    made = describe(
        clip,
        bank,
        region_encoder=how,
        route=route,
        image_size=as_size(clip, size),
        threshold=threshold,
        limit=limit,
        **told_of(matcher),
    )
    found = Detections(table[kept.rows], kept.labels, kept.scores)
    return DetectionResult(
        image, (picture.height, picture.width), found.boxes, found.labels, found.scores, bank.names, made
    )


def _check(threshold: float, limit: int) -> None:
    if not 0 <= threshold <= 1 or limit < 1:
        raise InputError(f"A threshold of {threshold} and at most {limit} objects: give 0 to 1, and 1 or more.")


def shown_size(placement: Placement) -> Int[Tensor, "1 2"]:
    """Return height and width in pixels of the picture on a canvas whose corner it lies in."""
    return torch.tensor([[round(placement.content[3]), round(placement.content[2])]])
