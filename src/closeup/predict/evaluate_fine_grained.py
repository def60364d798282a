"""FG-OVD's rank of right captions (FG-CLIP's evaluation), by any region encoder and matcher, over any reader."""

from __future__ import annotations

from closeup.data.record import Reader
from closeup.match.matcher import Matcher
from closeup.models.clip import Clip
from closeup.models.preprocess import Size
from closeup.models.routes import Route
from closeup.predict.evaluate_benchmarks import evaluate_benchmarks
from closeup.predict.evaluate_regions import Progress
from closeup.predict.fine_grained_report import FineGrainedReport
from closeup.text import Templates


def evaluate_fine_grained(
    clip: Clip,
    reader: Reader,
    *,
    negatives: int,
    matcher: Matcher | None = None,
    how: str = "crop",
    scale: float = 1.0,
    route: str | Route = "value",
    size: int | Size | None = None,
    templates: str | Templates = "name",
    limit: int | None = None,
    batch: int = 8,
    workers: int = 2,
    on_progress: Progress | None = None,
) -> FineGrainedReport:
    """Return how the right caption of every described region scores against its first ``negatives`` wrong ones.

    A caption is embedded once, however many regions it is said of; all that is kept are captions and scores.

    Args:
        clip: The model.
        reader: Records with boxes or masks and descriptions; others of its records are passed over.
        negatives: Wrong captions of a region at most; one with fewer has scores, and no rank. In FG-OVD 10, for
            patterns 7 and for transparency 2.
        matcher: What scores regions against captions, from embeddings as it takes them (None: the cosine).
        how: The region encoder. Crops are FG-CLIP's, masked ones OVSeg's.
        scale: Factor by which crops are enlarged about their centre.
        route: How the last block is replaced in the dense map.
        size: Longest side of the images for the dense map, or the side of crops (None: the model's own).
        templates: Sentences around the captions, averaged as the tower gives them ("name": captions as they are).
        limit: Only the first so many records.
        batch: Images that are encoded at a time, as in ``Clip.encode_regions``.
        workers: Threads that read records ahead; 0 for a reader that bears only one thread.
        on_progress: Called with the records done and the records in all.

    Raises:
        InputError: for an unknown region encoder or templates, a matcher of another width than the model's, ``scale``
            of an encoder that cuts nothing out, or a number below one.
        DataError: no record describes a region, or a region has not what the region encoder needs.

    Source: FG-CLIP (``lorebianchi98/FG-CLIP``, ``fg-ovd_feature_extraction`` and ``src/eval_util.py``) on FG-OVD (arXiv
    2311.17518). There are no regions but crops there.
    """
    found = evaluate_benchmarks(
        clip,
        {"": reader},
        {"": matcher},
        negatives={"": negatives},
        how=how,
        scale=scale,
        route=route,
        size=size,
        templates=templates,
        limit=limit,
        batch=batch,
        workers=workers,
        on_progress=on_progress,
    )
    return found[""].reports[""]
