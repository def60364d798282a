"""Detectors that can be asked for any captions: boxes in a picture, and how each box scores with every caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import PIL.Image
import torch

from closeup.errors import InputError
from closeup.evaluate import Answer
from closeup.heads.candidates import Candidates
from closeup.heads.dense_detector import DenseDetector
from closeup.heads.regions import inside
from closeup.heads.saved import AnyDetector, Detector, load_detector
from closeup.models.clip import Clip
from closeup.predict.caption_embeddings import CaptionEmbeddings
from closeup.predict.detect import shown_size
from closeup.predict.hf_owl import HF, open_hf_owl
from closeup.predict.provenance import Provenance, Setting, as_size, describe_captions
from closeup.text import get_templates

Captions: TypeAlias = tuple[str, ...]
"""What a detector is asked for at a time: one right caption, and wrong ones."""


@runtime_checkable
class CaptionDetector(Protocol):
    """Finds boxes for captions in a picture."""

    @property
    def name(self) -> str:
        """What it was loaded as."""
        ...

    def ask(self, image: str, picture: PIL.Image.Image, asked: Sequence[Captions]) -> list[Answer | None]:
        """Return the answer to each of several lists of captions, about a picture of a name, upright and in RGB.

        None where a caption is longer than it can read.
        """
        ...

    def provenance(self, **settings: Setting) -> Provenance:
        """Return what made the answers so far."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class OwnCaptionDetector:
    """A detector of any words that Closeup trained; captions are embedded as they are, and the background as learned.

    It looks at a picture once. Captions that are asked for together compete with each other and with the background
    alone, as words do. All describe one thing, so of boxes that overlap by more than half the best one stays, whatever
    its caption: otherwise those of one thing would fill an answer.
    """

    detector: Detector
    captions: CaptionEmbeddings

    @property
    def name(self) -> str:
        """What it was loaded as."""
        return self.detector.name

    @torch.inference_mode()
    def ask(self, image: str, picture: PIL.Image.Image, asked: Sequence[Captions]) -> list[Answer | None]:
        """Return the answers; see ``CaptionDetector``."""
        head, clip = self.detector.head, self.detector.clip
        canvas, placement = clip.preprocess(picture, policy="longest-pad-corner", size=self.detector.size)
        sizes = shown_size(placement)
        found: Candidates = head.look(canvas[None].to(clip.device), sizes)
        boxes, left = inside(found.boxes[0], sizes[0].tolist())
        left &= boxes.isfinite().all(dim=1)
        shown, background = placement.boxes_to_original(boxes.cpu()), head.words[-1:]
        answers: list[Answer | None] = []
        for captions in asked:
            rows = torch.cat([self.captions.embed(captions).to(background), background])
            (scores,) = found.scores(rows, self.detector.marks(captions))
            kept = (left & scores.isfinite().all(dim=1)).cpu()
            answers.append(Answer(image, captions, shown[kept], scores.cpu()[kept]).thinned())
        return answers

    def provenance(self, **settings: Setting) -> Provenance:
        """Return what made the answers so far."""
        head, clip = self.detector.head, self.detector.clip
        return describe_captions(
            clip,
            self.captions.known,
            templates="name",
            region_encoder=head.kind,
            route=head.route,
            image_size=as_size(clip, self.detector.size),
            detector=self.detector.name,
            detector_fingerprint=self.detector.fingerprint,
            **settings,
        )


def as_caption_detector(detector: AnyDetector | CaptionDetector) -> CaptionDetector:
    """Return a detector as one that can be asked for captions; InputError for one of a closed list of words."""
    if isinstance(detector, DenseDetector):
        raise InputError(
            f"The detector {detector.name!r} knows {len(detector.words)} words of its own, and no captions. Give "
            f"F-ViT, RegionCLIP's detector, or {HF}:NAME for OWL-ViT."
        )
    if isinstance(detector, Detector):
        return OwnCaptionDetector(detector, CaptionEmbeddings(detector.clip, get_templates("name")))
    return detector


def open_caption_detector(
    line: str | Path, *, device: str = "auto", precision: str = "auto", clip: Clip | None = None
) -> CaptionDetector:
    """Open the detector that a line of text names.

    The folder or name of a trained detector, or ``hf:NAME``, an OWL-ViT or OWLv2 of transformers by its name or folder.
    ``clip`` is as in ``load_detector``.

    Raises:
        InputError: a detector of a closed list of words, or a CLIP beside one of transformers.
        ModelError: it is unknown, of another kind, or cannot be fetched.
    """
    kind, _, name = str(line).partition(":")
    if kind != HF or not name:
        return as_caption_detector(load_detector(line, device=device, precision=precision, clip=clip))
    if clip is not None:
        raise InputError(
            f"{line} brings its own towers, and the model {clip.name!r} was given beside it. Leave it out."
        )
    return open_hf_owl(str(line), name, device=device)
