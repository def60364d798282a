"""What asking a detector for captions found: the ranks of right ones, and the average precision among captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from closeup.evaluate import (
    Answer,
    CaptionPrecision,
    FineGrained,
    FoundObjects,
    Objects,
    caption_precision,
    find_objects,
    rank_captions,
)
from closeup.predict.provenance import Provenance
from closeup.predict.report import Report


@dataclass(frozen=True, slots=True, eq=False)
class DescribedObjectsReport(Report):
    """The described objects of every picture, what the detector answered, and what made it.

    ``skipped`` are the lists of captions that the detector could not read. ``images`` counts those without described
    objects too; ``seconds`` are per image, reading included.
    """

    objects: tuple[Objects, ...]
    answers: tuple[Answer, ...]
    negatives: int
    skipped: int
    images: int
    seconds: float
    provenance: Provenance

    def found(self, *, unasked: str = "count") -> FoundObjects:
        """Return the scores of every object's captions, right one first; ``unasked`` as in ``find_objects``."""
        return find_objects(self.objects, self.answers, self.negatives, unasked=unasked)

    def ranks(self, *, unasked: str = "count", found: bool = False) -> FineGrained:
        """Return the ranks of right captions; with ``found`` of the objects alone that have a box.

        An object without one ranks last, so the first tells of finding and naming, the second of naming alone.
        """
        told = self.found(unasked=unasked)
        return rank_captions(list(told.scores[told.found]), self.negatives) if found else told.ranks()

    def precision(self, *, thin: bool = True, unasked: str = "count") -> CaptionPrecision:
        """Return the average precision by right captions; arguments as in ``caption_precision``."""
        return caption_precision(self.objects, self.answers, self.negatives, thin=thin, unasked=unasked)

    def summary(self) -> dict[str, float | int | str | None]:
        """Return the figures as a flat mapping fit for JSON; a mean over nothing is None.

        ``found`` is the share of objects that have a box, 0 to 1, and ``mean_rank_found`` and ``top1_found`` are theirs
        alone; the other ranks are of all objects.
        """
        told, of_found = self.found(), self.ranks(found=True).summary()
        precision = self.precision().summary()
        return {
            **told.ranks().summary(),
            "found": told.found.double().mean().item(),
            **{f"{name}_found": of_found[name] for name in ("mean_rank", "top1")},
            **{name: precision[name] for name in ("ap", "ap50", "ap75")},
            "unasked": told.unasked,
            "skipped": self.skipped,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, fit for JSON, without the boxes."""
        told = self.found()
        rows = zip(told.places, told.found.tolist(), told.scores.tolist(), strict=True)
        return {
            "summary": self.summary(),
            "precision": self.precision().summary(),
            "objects": [
                {"image": self.objects[place].image, "object": row, "found": found, "scores": scores}
                for (place, row), found, scores in rows
            ],
            "images": self.images,
            "seconds_per_image": self.seconds,
            "provenance": self.provenance.to_dict(),
        }
