"""What an evaluation of regions found: CLIPSelf's Tables 1 and 2, one row for each region encoder and kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from closeup.errors import InputError
from closeup.evaluate import Recognition
from closeup.predict.provenance import Provenance
from closeup.predict.report import Report

Row: TypeAlias = dict[str, str | int | float | None]


@dataclass(frozen=True, slots=True, eq=False)
class RegionReport(Report):
    """How well regions were recognised, by region encoder, shape (boxes or masks) and kind (things or stuff).

    ``found`` holds one recognition per region encoder and shape, over things and stuff together. ``seconds`` per
    image: one number per region encoder (encoding and pooling), and "total" with reading and preparing. ``left_out``
    regions were too small or too large for the protocol, ``images`` counts those without regions too.
    """

    found: Mapping[tuple[str, str], Recognition]
    things: tuple[bool, ...]
    images: int
    left_out: int
    seconds: Mapping[str, float]
    provenance: Provenance

    def recognition(self, how: str, shape: str, kind: str) -> Recognition:
        """Return the counts of one row, "boxes" or "masks" of "things" or "stuff"; InputError where there is none."""
        if kind not in ("things", "stuff"):
            raise InputError(f"Unknown kind of region {kind!r}: use 'things' or 'stuff'.")
        if (how, shape) not in self.found:
            known = ", ".join(f"{encoder} {regions}" for encoder, regions in self.found)
            raise InputError(f"{shape} were not evaluated with the region encoder {how!r}, only: {known}.")
        things = torch.tensor(self.things, dtype=torch.bool)
        return self.found[how, shape].only(things if kind == "things" else ~things)

    def table(self) -> list[Row]:
        """Return one row per region encoder, shape and kind: regions, classes, and mean accuracies over classes.

        ``top1`` and ``top5`` are means over the classes that have a region (mAcc of CLIPSelf), 0 to 1, or None
        where there is no region.
        """
        return [self._row(how, shape, kind) for how, shape in self.found for kind in ("things", "stuff")]

    def per_class(self) -> list[Row]:
        """Return one row per region encoder, shape and class that has a region: its regions and accuracies."""
        return [
            {"encoder": how, "shape": shape, **row}
            for (how, shape), recognition in self.found.items()
            for row in recognition.table()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, fit for JSON."""
        return {
            "rows": self.table(),
            "per_class": self.per_class(),
            "images": self.images,
            "left_out": self.left_out,
            "seconds_per_image": dict(self.seconds),
            "provenance": self.provenance.to_dict(),
        }

    def _row(self, how: str, shape: str, kind: str) -> Row:
        means = self.recognition(how, shape, kind).summary()
        told: Row = {"encoder": how, "shape": shape, "kind": kind, "regions": means["regions"]}
        return {**told, "classes": means["classes"], "top1": means["macro_top1"], "top5": means["macro_top5"]}
