"""What an evaluation of fine-grained matching found: every described region's scores, and the ranks they make."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from closeup.data.record import Description
from closeup.errors import InputError
from closeup.evaluate.fine_grained import FineGrained, rank_captions
from closeup.predict.provenance import Provenance
from closeup.predict.report import Report


@dataclass(frozen=True, slots=True, eq=False)
class DescribedRegion:
    """A region of a record, and the score of each caption that was asked: the right one, then wrong ones in order."""

    record: str
    region: int
    description: Description
    attributes: Mapping[str, str]
    scores: Float[Tensor, " captions"]


@dataclass(frozen=True, slots=True, eq=False)
class FineGrainedReport(Report):
    """The scores of every described region, of at most ``negatives`` wrong captions each, and what made them.

    ``images`` counts those without described regions too; ``seconds`` are per image, reading included: of
    the whole pass, where it served several benchmarks or matchers.
    """

    items: tuple[DescribedRegion, ...]
    negatives: int
    images: int
    seconds: float
    provenance: Provenance

    def ranks(self, negatives: int | None = None) -> FineGrained:
        """Return the ranks among as many wrong captions as were asked, or fewer; InputError for more."""
        chosen = self.negatives if negatives is None else negatives
        if chosen > self.negatives:
            raise InputError(f"Ranks among {chosen} wrong captions are wanted, and {self.negatives} were asked.")
        return rank_captions([item.scores for item in self.items], chosen)

    def families(self) -> dict[str, dict[str, float | int]]:
        """Return, by attribute, the wrong captions that change it alone, and the share that score below the right one.

        An attribute is changed where its value is said in the right caption and not in the wrong one; so there is
        something to tell only for records that know the attributes of regions. Ties count against, chance is 0.5.
        """
        below: defaultdict[str, list[bool]] = defaultdict(list)
        for item in self.items:
            right, *wrong = item.scores.tolist()
            for caption, score in zip(item.description.wrong, wrong, strict=False):
                changed = _changed(item.attributes, item.description.right, caption)
                if len(changed) == 1:
                    below[changed[0]].append(score < right)
        return {family: {"pairs": len(each), "below": sum(each) / len(each)} for family, each in sorted(below.items())}

    def summary(self) -> dict[str, float | int | str | None]:
        """Return the figures as a flat mapping fit for JSON; a mean over nothing is None."""
        return self.ranks().summary()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, fit for JSON; a score that is not a number is None."""
        return {
            "summary": self.summary(),
            "families": self.families(),
            "items": [
                {
                    "record": item.record,
                    "region": item.region,
                    "scores": [None if score != score else score for score in item.scores.tolist()],
                }
                for item in self.items
            ],
            "images": self.images,
            "seconds_per_image": self.seconds,
            "provenance": self.provenance.to_dict(),
        }


def _changed(attributes: Mapping[str, str], right: str, wrong: str) -> list[str]:
    return [family for family, value in attributes.items() if _says(right, value) and not _says(wrong, value)]


def _says(caption: str, value: str) -> bool:
    return re.search(rf"\b{re.escape(value)}\b", caption, re.IGNORECASE) is not None
