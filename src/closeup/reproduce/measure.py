"""What is measured of models for a table, each model and setting once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

from closeup.data.record import Reader
from closeup.data.world import World
from closeup.data.world.fine_grained import every_benchmark
from closeup.data.world.lexicon import ATTRIBUTES
from closeup.data.world.twins import Twins
from closeup.evaluate import Retrieval
from closeup.heads.fvit import FVit
from closeup.heads.mask_proposer import load_mask_proposer
from closeup.heads.rpn import load_proposer
from closeup.heads.saved import load_detector
from closeup.match.detections import Suppression
from closeup.match.matcher import Matcher
from closeup.models.blend import blend
from closeup.models.clip import Clip
from closeup.models.levels import with_levels
from closeup.models.load import load
from closeup.models.mask_prompt import cut_out_view
from closeup.models.windows import Window
from closeup.predict.benchmarks_report import BenchmarksReport
from closeup.predict.caption_detectors import as_caption_detector
from closeup.predict.described_objects_report import DescribedObjectsReport
from closeup.predict.detection_report import DetectionReport
from closeup.predict.evaluate_benchmarks import evaluate_benchmarks
from closeup.predict.evaluate_described_objects import evaluate_described_objects
from closeup.predict.evaluate_detection import evaluate_detection, evaluate_zero_shot_detection
from closeup.predict.evaluate_panoptic import evaluate_panoptic
from closeup.predict.evaluate_regions import evaluate_regions
from closeup.predict.evaluate_segmentation import SegmentationReport, evaluate_scorer
from closeup.predict.forgetting import measure_close_ups
from closeup.predict.forgetting_report import CLASSIFICATION, RETRIEVAL, Figure
from closeup.predict.matching import looked_at
from closeup.predict.panoptic_report import PanopticReport
from closeup.predict.region_report import RegionReport
from closeup.predict.scorers import Scorer
from closeup.predict.whole_image import encode_whole, retrievals

Counter: TypeAlias = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Given what is being done, a context that is told how many are done, of how many."""


@dataclass(frozen=True, slots=True)
class Scale:
    """On how much of the world's held-out split figures are measured."""

    scenes: int = 500
    trend_scenes: int = 200
    """Scenes of the trend with size, and of segmentation, which ask for many passes."""
    close_ups: int = 2400
    curve_close_ups: int = 600
    """Close-ups of the curves, which ask for many models."""
    size: int = 256
    """Side in pixels of the student's pictures in the tables: that of the scenes, 32 cells."""
    sizes: tuple[int, ...] = (96, 128, 192, 256, 320)
    """Sides of the trend."""
    alphas: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Shares of the adapted model in blends."""
    workers: int = 2


TWINS = 192
"""Side in pixels at which pictures of twins are drawn, and looked at whole."""
LOT = 100
"""Scenes among which a caption's own is looked for; captions of scenes fit many of them."""


@dataclass(frozen=True, slots=True)
class Blend:
    """A model between two others: ``alpha`` of ``adapted``, the rest of ``base``."""

    base: str
    adapted: str
    alpha: float

    def __str__(self) -> str:
        return f"{self.alpha:g} of {self.adapted}"


Model: TypeAlias = str | Blend


def between(base: str, adapted: str, alpha: float) -> Model:
    """Return a blend, or one of its ends by its own name, so that it is measured once."""
    return {0.0: base, 1.0: adapted}.get(alpha, Blend(base, adapted, alpha))


@dataclass(slots=True)
class Measurements:
    """Loads models by name and measures them, keeping what was found."""

    scale: Scale
    counter: Counter
    _regions: dict[tuple[object, ...], RegionReport] = field(default_factory=dict)
    _whole: dict[tuple[object, ...], list[Figure]] = field(default_factory=dict)
    _detections: dict[tuple[object, ...], DetectionReport] = field(default_factory=dict)
    _segmented: dict[str, SegmentationReport] = field(default_factory=dict)
    _panoptic: dict[tuple[object, ...], PanopticReport] = field(default_factory=dict)
    _matched: dict[tuple[object, ...], Any] = field(default_factory=dict)

    def clip(self, model: Model) -> Clip:
        """Return a model."""
        return _loaded(model)

    def dense(self, model: Model, size: int, scenes: int, window: Window | None = None) -> RegionReport:
        """Return region recognition from the dense map at a size."""
        return self._recognise(model, "dense", size, scenes, window)

    def crops(self, model: Model) -> RegionReport:
        """Return region recognition from crops at the native size."""
        return self._recognise(model, "crop", self.scale.size, self.scale.scenes, None)

    def whole(self, model: Model, close_ups: int) -> list[Figure]:
        """Return figures of whole images: close-ups of the world."""
        key = (model, close_ups)
        if key not in self._whole:
            with self.counter(f"{model}: whole images") as tell:
                self._whole[key] = measure_close_ups(
                    self.clip(model), close_ups, workers=self.scale.workers, on_progress=tell
                )
        return self._whole[key]

    def detections(
        self, detector: str, *, masks: bool = False, suppression: Suppression | None = None, **fusion: float
    ) -> DetectionReport:
        """Return what a trained detector finds, by boxes or by masks.

        ``fusion`` are changes to how its scores meet CLIP's.
        """
        key = (detector, masks, suppression, *sorted(fusion.items()))
        if key not in self._detections:
            loaded = load_detector(detector)
            if isinstance(loaded.head, FVit):
                loaded.head.config = loaded.head.config.replace(**fusion)
            told = [*(f"{name} {value:g}" for name, value in fusion.items()), *(["masks"] if masks else [])]
            with self.counter(" ".join([detector, *told])) as tell:
                self._detections[key] = evaluate_detection(
                    loaded,
                    World("val", count=self.scale.scenes),
                    suppression=suppression,
                    masks=masks,
                    workers=self.scale.workers,
                    on_progress=tell,
                )
        return self._detections[key]

    def named(self, model: Model, proposer: str | None = None) -> DetectionReport:
        """Return average precision of a CLIP alone on true boxes, or on a proposer's."""
        key = (model, proposer)
        if key not in self._detections:
            with self.counter(f"{model}: {'true boxes' if proposer is None else 'proposals'}") as tell:
                self._detections[key] = evaluate_zero_shot_detection(
                    self.clip(model),
                    World("val", count=self.scale.scenes),
                    boxes="truth" if proposer is None else load_proposer(proposer),
                    size=self.scale.size,
                    workers=self.scale.workers,
                    on_progress=tell,
                )
        return self._detections[key]

    def masks_named(self, model: Model) -> RegionReport:
        """Return region recognition from true masks cut out, seen with the model's mask prompts where it has some."""
        return self._recognise(model, cut_out_view(self.clip(model)), self.scale.size, self.scale.scenes, None)

    def segmented(
        self,
        name: str,
        make: Callable[[], Scorer],
        reader: Reader | None = None,
        novel: Sequence[bool] | None = None,
    ) -> SegmentationReport:
        """Return mean IoU of a scorer, which is made and asked once for its name.

        On the world's held-out scenes, or all that a ``reader`` has; ``novel`` as in ``evaluate_scorer``.
        """
        if name not in self._segmented:
            with self.counter(name) as tell:
                self._segmented[name] = evaluate_scorer(
                    make(),
                    reader or World("val", count=self.scale.trend_scenes),
                    novel=novel,
                    workers=self.scale.workers,
                    on_progress=tell,
                )
        return self._segmented[name]

    def described(
        self, model: str, matchers: Mapping[str, Matcher | None], how: str = "crop", *, few: bool = False
    ) -> dict[str, BenchmarksReport]:
        """Return how matchers rank right captions in all benchmarks, on held-out scenes of the split test.

        With ``few`` on fewer scenes, those that a detector is asked about. What is found is kept by matchers' weights.
        """
        scenes = self.scale.trend_scenes if few else self.scale.scenes
        return self._by_matcher(
            f"described on {scenes} scenes",
            model,
            matchers,
            how,
            lambda new, tell: evaluate_benchmarks(
                self.clip(model),
                every_benchmark(World("test", count=scenes)),
                new,
                how=how,
                size=None if how == "crop" else self.scale.size,
                workers=self.scale.workers,
                on_progress=tell,
            ),
        )

    def asked(self, detector: str) -> dict[str, DescribedObjectsReport]:
        """Return what a detector answers in each benchmark, on fewer scenes of the split test."""
        worlds = every_benchmark(World("test", count=self.scale.trend_scenes))
        asking = as_caption_detector(load_detector(detector))
        found = {}
        for name, reader in worlds.items():
            with self.counter(f"{detector}: {name}") as tell:
                found[name] = evaluate_described_objects(
                    asking, reader, negatives=reader.negatives, workers=self.scale.workers, on_progress=tell
                )
        return found

    def twins(
        self, model: str, matchers: Mapping[str, Matcher | None], how: str = "crop"
    ) -> dict[str, BenchmarksReport]:
        """Return how often matchers call twins by their own names, a report per family of attributes."""

        def find(new: Mapping[str, Matcher | None], tell: Callable[[int, int], None]) -> Mapping[str, BenchmarksReport]:
            return evaluate_benchmarks(
                self.clip(model),
                {family: Twins(family, count=self.scale.trend_scenes) for family in ATTRIBUTES},
                new,
                negatives=dict.fromkeys(ATTRIBUTES, 1),
                how=how,
                size=None if how == "crop" else TWINS,
                workers=self.scale.workers,
                on_progress=tell,
            )

        return self._by_matcher("twins", model, matchers, how, find)

    def retrieved(self, model: str, matchers: Mapping[str, Matcher | None]) -> dict[str, Retrieval]:
        """Return retrieval of whole scenes of the split test, the mean over lots of ``LOT``, by several matchers."""

        def find(new: Mapping[str, Matcher | None], tell: Callable[[int, int], None]) -> dict[str, Retrieval]:
            clip, world = self.clip(model), World("test", count=self.scale.scenes)
            found: dict[str, Retrieval] = {}
            for levels in {looked_at(matcher) for matcher in new.values()}:
                alike = {name: matcher for name, matcher in new.items() if looked_at(matcher) == levels}
                view = with_levels(clip, levels)
                images = encode_whole(view, world, normalize=False, workers=self.scale.workers, on_progress=tell)
                found |= retrievals(clip, images, alike, lot=LOT)
            return found

        return self._by_matcher("retrieved", model, matchers, "whole", find)

    def _by_matcher(
        self,
        what: str,
        model: str,
        matchers: Mapping[str, Matcher | None],
        how: str,
        find: Callable[[Mapping[str, Matcher | None], Callable[[int, int], None]], Mapping[str, Any]],
    ) -> dict[str, Any]:
        keys = {
            name: (what, model, how, None if matcher is None else matcher.fingerprint)
            for name, matcher in matchers.items()
        }
        new = {name: matchers[name] for name, key in keys.items() if key not in self._matched}
        if new:
            with self.counter(f"{model}: {what}, {how}") as tell:
                found = find(new, tell)
            self._matched |= {keys[name]: each for name, each in found.items()}
        return {name: self._matched[key] for name, key in keys.items()}

    def panoptic(self, model: str, proposer: str, **settings: float) -> PanopticReport:
        """Return panoptic quality with a proposer's masks read off a model's dense map."""
        key = (model, proposer, *sorted(settings.items()))
        if key not in self._panoptic:
            with self.counter(f"{model}: panoptic") as tell:
                self._panoptic[key] = evaluate_panoptic(
                    self.clip(model),
                    load_mask_proposer(proposer),
                    World("val", count=self.scale.trend_scenes),
                    workers=self.scale.workers,
                    on_progress=tell,
                    **settings,  # type: ignore[arg-type]
                )
        return self._panoptic[key]

    def _recognise(self, model: Model, how: str, size: int, scenes: int, window: Window | None) -> RegionReport:
        key = (model, how, size, scenes, window)
        if key not in self._regions:
            with self.counter(f"{model}: {how} at {size} px") as tell:
                self._regions[key] = evaluate_regions(
                    self.clip(model),
                    World("val", count=scenes),
                    how=(how,),
                    size=size,
                    window=window,
                    workers=self.scale.workers,
                    on_progress=tell,
                )
        return self._regions[key]


def top(report: RegionReport, how: str, shape: str, kind: str, k: int = 1) -> float:
    """Return the mean accuracy over classes of one kind of region, in percent."""
    return 100 * report.recognition(how, shape, kind).macro(k)


def classification(figures: Sequence[Figure]) -> float:
    """Return zero-shot accuracy in percent, the mean over the shape, each attribute and the ground."""
    return _mean([figure.value for figure in figures if figure.task == CLASSIFICATION])


def first_hits(figures: Sequence[Figure]) -> float:
    """Return retrieval R@1 in percent, the mean of both directions."""
    named = [figure for figure in figures if figure.task == RETRIEVAL and figure.name.endswith("R@1")]
    return _mean([figure.value for figure in named])


def _mean(shares: list[float]) -> float:
    return 100 * sum(shares) / len(shares)


@lru_cache(maxsize=8)
def _loaded(model: Model) -> Clip:
    if isinstance(model, Blend):
        return blend(_loaded(model.base), _loaded(model.adapted), model.alpha)
    return load(model)
