"""What every result has: a picture, arrays, files, and what made it."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from closeup._types import Boxes, ImageLike, Labels, Masks
from closeup.data.atomic import replacing, write_json
from closeup.errors import CloseupError, InputError
from closeup.geometry import masks_to_boxes
from closeup.predict.coco import coco_document, region_annotations
from closeup.predict.provenance import Provenance

PICTURES = (".png", ".jpg", ".jpeg", ".webp")

Arrays = dict[str, Shaped[np.ndarray, "..."]]
Regions = tuple[Boxes | None, Masks | None, Labels, Float[Tensor, " count"]]
Writer = Callable[[Path], object]


class Result(ABC):
    """One image, what was found in it, and what found it."""

    __slots__ = ()
    image: ImageLike
    """As it was given; a path is opened again when the picture is drawn."""
    size: tuple[int, int]
    """Height and width of the original image, in pixels."""
    names: tuple[str, ...]
    """What labels index."""
    provenance: Provenance

    @abstractmethod
    def picture(self) -> PIL.Image.Image:
        """Return the image with the result drawn over it."""

    @abstractmethod
    def arrays(self) -> Arrays:
        """Return the result as arrays by name."""

    def show(self) -> None:
        """Open the picture in the system's viewer; a notebook shows a result without being asked."""
        self.picture().show()

    def save(self, path: str | Path) -> Path:
        """Write the result, whole or not at all, and return the path.

        The suffix chooses: png, jpg or webp for the picture; npz for the arrays with ``names``, ``size`` and, as
        JSON text, ``provenance``; json for COCO, where the result has labels.

        Raises:
            InputError: for any other suffix.
        """
        path = Path(path).expanduser()
        writers = self._writers()
        if path.suffix.lower() not in writers:
            raise InputError(
                f"{path}: a {type(self).__name__} can be saved as {', '.join(writers)}; use such a suffix."
            )
        with replacing(path) as temporary:
            writers[path.suffix.lower()](temporary)
        return path

    def _writers(self) -> dict[str, Writer]:
        return {**dict.fromkeys(PICTURES, self._write_picture), ".npz": self._write_arrays}

    def _write_picture(self, path: Path) -> None:
        self.picture().save(path)

    def _write_arrays(self, path: Path) -> None:
        told = {"names": self.names, "size": self.size, "provenance": self.provenance.to_json()}
        stored: dict[str, Any] = {**self.arrays(), **{name: np.array(value) for name, value in told.items()}}
        np.savez_compressed(path, **stored)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.picture().save(buffer, "png")
        return buffer.getvalue()


class LabelledResult(Result):
    """A result that can be told as regions of one label each."""

    __slots__ = ()

    @abstractmethod
    def labelled(self) -> Regions:
        """Return boxes, masks, labels and scores; at least one of boxes and masks is there."""

    def annotations(self) -> list[dict[str, Any]]:
        """Return one COCO annotation per region, without the numbers that its document gives."""
        return region_annotations(*self.labelled())

    def to_coco(self) -> dict[str, Any]:
        """Return a COCO document of this image alone, as ``coco_document`` makes one of many."""
        return coco_document([self])

    def to_supervision(self) -> Any:  # noqa: ANN401 - the type of an optional package
        """Return ``supervision.Detections``; CloseupError where that package is missing."""
        try:
            import supervision
        except ImportError as error:
            raise CloseupError("supervision is not installed: pip install 'closeup[supervision]'.") from error
        boxes, masks, labels, scores = self.labelled()
        frames = boxes if boxes is not None else masks_to_boxes(masks) if masks is not None else torch.zeros(0, 4)
        return supervision.Detections(
            xyxy=frames.numpy(),
            mask=None if masks is None else masks.numpy(),
            confidence=scores.numpy(),
            class_id=labels.numpy(),
            data={"class_name": np.array([self.names[label] for label in labels.tolist()], dtype=str)},
        )

    def _writers(self) -> dict[str, Writer]:
        return {**super()._writers(), ".json": lambda path: write_json(path, self.to_coco())}
