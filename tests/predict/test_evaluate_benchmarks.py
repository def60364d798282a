from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from closeup.data.benchmarks import open_benchmarks
from closeup.data.fgovd import BENCHMARKS
from closeup.data.record import Reader, Record
from closeup.data.world.fine_grained import FineGrainedWorld, every_benchmark
from closeup.data.world.scene import Thing
from closeup.data.world.world import World
from closeup.errors import DataError, InputError
from closeup.match import Matcher, new_matcher
from closeup.models.clip import Clip
from closeup.predict import evaluate_fine_grained
from closeup.predict.benchmarks_report import BenchmarksReport
from closeup.predict.evaluate_benchmarks import evaluate_benchmarks, negatives_of
from closeup.predict.whole_image import WholeImages, encode_whole, retrievals
from goldens import SHARED
from tiny_towers import randomise


class Counted(World):
    """A world that counts its drawings."""

    drawn = 0

    def with_things(self, index: int) -> tuple[Record, tuple[Thing, ...]]:
        self.drawn += 1
        return super().with_things(index)


@pytest.fixture(scope="module")
def world() -> World:
    return World(count=5, size=(96, 96))


def matchers(dim: int) -> dict[str, Matcher | None]:
    """Return the cosine, a matcher of unit embeddings and one of raw ones."""
    made: dict[str, Matcher | None] = {"cosine": None}
    for seed, inputs in enumerate(("unit", "raw")):
        matcher = new_matcher("linear", dim, inputs=inputs)  # type: ignore[arg-type]
        randomise(matcher, seed)
        made[inputs] = matcher
    return made


@pytest.mark.parametrize("how", ["crop", "dense"])
def test_all_at_once_is_each_by_itself(clip: Clip, world: World, how: str) -> None:
    names = ("1_attributes", "color", "transparency")
    readers = {name: FineGrainedWorld(world, name) for name in names}
    by = matchers(clip.dim)
    found = evaluate_benchmarks(clip, readers, by, how=how, batch=2)
    assert list(found) == list(by)
    for name, report in found.items():
        assert list(report.reports) == list(names)
        for benchmark in names:
            one = evaluate_fine_grained(
                clip, readers[benchmark], negatives=BENCHMARKS[benchmark].negatives, matcher=by[name], how=how
            )
            both = report.reports[benchmark]
            assert [each.description for each in both.items] == [each.description for each in one.items]
            for ours, theirs in zip(both.items, one.items, strict=True):
                torch.testing.assert_close(ours.scores, theirs.scores, atol=2e-6, rtol=1e-5)
            assert both.provenance == one.provenance
            assert both.images == 5


def test_a_region_is_drawn_and_encoded_once(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    world = Counted(count=4, size=(96, 96))
    seen: list[int] = []
    encode_regions = clip.encode_regions

    def watched(images: Any, **settings: Any) -> Any:  # noqa: ANN401
        seen.extend(len(boxes) for boxes in settings["boxes"])
        return encode_regions(images, **settings)

    monkeypatch.setattr(clip, "encode_regions", watched)
    report = evaluate_benchmarks(clip, every_benchmark(world), matchers(clip.dim), batch=2, workers=2)["raw"]
    assert world.drawn == 4
    distinct = {(item.record, item.region) for each in report.reports.values() for item in each.items}
    assert sum(seen) == len(distinct) > 0
    assert all(len(each.items) == len(distinct) for each in report.reports.values())


def test_pictures_in_files_are_known_again(clip: Clip, world: World, tmp_path: Path) -> None:
    """Two benchmarks whose records stand in another order, of pictures that are files."""
    scenes = [each for each in (FineGrainedWorld(world, "color")[index] for index in range(5)) if each.count]
    records = []
    for record in scenes:
        path = tmp_path / f"{record.id}.png"
        record.load().save(path)
        records.append(Record(record.id, path, record.size, boxes=record.boxes, descriptions=record.descriptions))
    readers = {"color": Listed(records), "1_attributes": Listed(records[::-1])}
    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        encode_regions = clip.encode_regions

        def watched(images: Any, **settings: Any) -> Any:  # noqa: ANN401
            seen.extend(len(boxes) for boxes in settings["boxes"])
            return encode_regions(images, **settings)

        patch.setattr(clip, "encode_regions", watched)
        report = evaluate_benchmarks(clip, readers, {"": None}, batch=1, workers=0)[""]
    assert sum(seen) == sum(record.count for record in records)
    there, back = ({(item.record, item.region): item.scores for item in each.items} for each in report.reports.values())
    assert {key: scores.tolist() for key, scores in there.items()} == {
        key: scores.tolist() for key, scores in back.items()
    }


class Listed:
    """Records of a list."""

    names = ("thing",)
    things = (True,)

    def __init__(self, records: list[Record]) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int, /) -> Record:
        return self._records[index]


def test_every_benchmark_is_the_world_s_own(world: World) -> None:
    found = every_benchmark(world)
    assert list(found) == list(BENCHMARKS)
    for name, reader in found.items():
        own = FineGrainedWorld(world, name)
        assert [reader[index].descriptions for index in (3, 0)] == [own[index].descriptions for index in (3, 0)]


def test_the_mean_counts_benchmarks_alike(clip: Clip, world: World) -> None:
    report = evaluate_benchmarks(clip, every_benchmark(world), {"": None})[""]
    means = [each.ranks().mean for each in report.reports.values() if len(each.ranks().ranks)]
    assert report.mean_rank == pytest.approx(sum(means) / len(means))
    assert len(means) == len(report.ranked) == 8
    rows = report.table()
    assert [row["benchmark"] for row in rows] == [each.title for each in BENCHMARKS.values()]
    assert [row["N"] for row in rows] == [10, 10, 10, 10, 10, 6, 6, 2], "the world has six other materials and patterns"
    told = json.loads(report.to_json())
    assert told["mean_rank"] == report.mean_rank
    few = evaluate_benchmarks(
        clip, {"material": FineGrainedWorld(world, "material")}, {"": None}, negatives={"material": 7}
    )
    assert few[""].ranked == ()
    assert few[""].summary()["benchmarks"]["material"]["mean_rank"] is None
    assert report.summary()["benchmarks"]["color"] == report.reports["color"].summary()
    assert math.isnan(BenchmarksReport({}).mean_rank)


def test_what_does_not_fit_is_said(clip: Clip, world: World) -> None:
    readers: Mapping[str, Reader] = {"mine": FineGrainedWorld(world, "color")}
    assert negatives_of(readers) == {"mine": 10}, "the world's own number"
    with pytest.raises(InputError, match=r"'mine' is none of FG-OVD's benchmarks"):
        evaluate_benchmarks(clip, {"mine": world}, {"": None})
    with pytest.raises(InputError, match="negatives is 0"):
        negatives_of(readers, {"mine": 0})
    with pytest.raises(InputError, match="no matcher to evaluate"):
        evaluate_benchmarks(clip, readers, {}, negatives={"mine": 1})
    with pytest.raises(DataError, match="None of 0 records describes a region"):
        evaluate_benchmarks(clip, {"color": Listed([])}, {"": None})


@torch.no_grad()
def test_retrieval_by_many_matchers_is_a_loop_over_pairs(clip: Clip, world: World) -> None:
    images = encode_whole(clip, world, normalize=False)
    by = matchers(clip.dim)
    texts = [caption for captions in images.captions for caption in captions]
    owner = [row for row, captions in enumerate(images.captions) for _ in captions]
    said = clip.encode_text(texts, normalize=False)
    for name, found in retrievals(clip, images, by).items():
        matcher = by[name] or new_matcher("cosine")
        first = 0
        for place, text in enumerate(said):
            scores = [float(matcher(image[None], text[None])) for image in images.embeddings]
            first += sum(score >= scores[owner[place]] for score in scores) == 1
        assert found.text_to_image[0] == pytest.approx(first / len(texts), abs=1.01 / len(texts))


def test_a_matcher_of_raw_embeddings_refuses_unit_ones(clip: Clip, world: World) -> None:
    images = encode_whole(clip, world)
    with pytest.raises(InputError, match="length one"):
        retrievals(clip, images, {"raw": matchers(clip.dim)["raw"]})
    with pytest.raises(InputError, match="5 dimensions"):
        retrievals(clip, images, {"other": new_matcher("linear", 5)})
    bare = WholeImages(images.embeddings, images.labels, ((),) * 5)
    with pytest.raises(DataError, match="no image has a caption"):
        retrievals(clip, bare, {"": None})


def test_lines_name_benchmarks(tmp_path: Path) -> None:
    assert list(open_benchmarks("world?count=2&size=64")) == list(BENCHMARKS)
    assert list(open_benchmarks("world?count=2&negatives=color")) == ["color"]
    for wrong, message in (("voc:/nowhere", "no"), ("world?negatives=colour", "color"), ("no.json", "no such file")):
        with pytest.raises((InputError, DataError), match=message):
            open_benchmarks(wrong)
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match="holds none of FG-OVD's files"):
        open_benchmarks(str(tmp_path))


@pytest.mark.skipif(not (SHARED / "data/fgovd/benchmarks").is_dir(), reason="FG-OVD's files are not here")
def test_official_files_are_benchmarks() -> None:
    folder = SHARED / "data/fgovd"
    expected = ["3_attributes", "pattern", "transparency"]
    for line in (f"fgovd:{folder}", f"fgovd:{folder}/benchmarks", f"{folder}/benchmarks"):
        assert list(open_benchmarks(line)) == expected
    for line in (f"{folder}/benchmarks/pattern.json", f"fgovd:{folder}/benchmarks?split=pattern&images=none"):
        ((name, reader),) = open_benchmarks(line).items()
        assert (name, len(reader)) == ("pattern", 321)
