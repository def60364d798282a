from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from closeup.data.record import Record
from closeup.data.world import World
from closeup.errors import DataError, InputError
from closeup.evaluate import CLIPSELF, RegionProtocol
from closeup.geometry import masks_to_boxes
from closeup.models.clip import Clip
from closeup.predict import RegionReport, evaluate_regions
from closeup.predict.words import as_bank
from closeup.text import Vocabulary
from tiny_clips import as_clip, picture
from tiny_towers import resnet_clip

NAMES = ("cat", "dog", "car", "grass", "sky", "wall", "road")
THINGS = (True, True, True, False, False, False, False)


class TinyReader:
    """Pictures of several sizes with random boxes, masks and labels; the last record has no region."""

    names = NAMES
    things = THINGS

    def __init__(self, count: int = 7, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def below(limit: int) -> int:
            return int(torch.randint(limit, (1,), generator=generator))

        self.records = []
        for index in range(count):
            height, width = 40 + below(50), 40 + below(50)
            masks = torch.zeros(8, height, width, dtype=torch.bool)
            for plane in masks:
                top, left = below(height - 6), below(width - 6)
                plane[top : top + 3 + below(height), left : left + 3 + below(width)] = True
                plane[top + 1, left + 1] = False
            labels = torch.tensor([below(len(NAMES)) for _ in range(8)])
            labels[0] = -1
            boxes = masks_to_boxes(masks)
            boxes[:, :2] = (boxes[:, :2] - 0.75).clamp(min=0)
            image = PIL.Image.fromarray(picture(height, width, seed=index).numpy())
            self.records.append(Record(f"r{index}", image, (height, width), boxes, masks, labels))
        self.records.append(Record("empty", PIL.Image.new("RGB", (30, 30)), (30, 30)))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int, /) -> Record:
        return self.records[index]


@pytest.fixture(scope="module")
def reader() -> TinyReader:
    return TinyReader()


Table = dict[tuple[str, str, str], tuple[int, float, float]]


def normalised(picture: PIL.Image.Image, clip: Clip) -> Tensor:
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    pixels = pixels.view(picture.height, picture.width, 3).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(clip.mean)[:, None, None]) / torch.tensor(clip.std)[:, None, None]


def pasted(picture: PIL.Image.Image, side: int, *, centre: bool) -> PIL.Image.Image:
    """Bring the longest side to ``side``, on a black square: in its corner or its middle."""
    scale = side / max(picture.size)
    small = picture.resize((round(picture.width * scale), round(picture.height * scale)), PIL.Image.Resampling.BICUBIC)
    square = PIL.Image.new("RGB", (side, side))
    spot = ((side - small.width) // 2, (side - small.height) // 2) if centre else (0, 0)
    square.paste(small, spot)
    return square


def brute_force(clip: Clip, reader: TinyReader, texts: Tensor, size: int) -> Table:
    """Do what the paper's evaluation does, region by region, with torchvision's RoIAlign."""
    ranks: dict[tuple[str, str, str], dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for record in reader.records:
        if record.boxes is None or record.masks is None or record.labels is None:
            continue
        photo = record.image
        assert isinstance(photo, PIL.Image.Image)
        dense = clip.encode_dense(normalised(pasted(photo, size, centre=False), clip)[None])
        factor = size / max(photo.size) / clip.patch
        cells = (round(photo.height * factor), round(photo.width * factor))
        for box, mask, label in zip(record.boxes, record.masks, record.labels.tolist(), strict=True):
            if label == -1:
                continue
            kind = "things" if THINGS[label] else "stuff"
            box = box if kind == "things" else masks_to_boxes(mask[None])[0]
            x0, y0, x1, y1 = box.tolist()
            if not 64 <= (x1 - x0) * (y1 - y0) <= 1024**2:
                continue
            roi = torch.cat([torch.zeros(1), box * factor])[None]
            found = {("dense", "boxes"): roi_align(dense, roi, (1, 1), 1.0, -1, True)[0, :, 0, 0]}
            small = F.interpolate(mask[None, None].float(), cells, mode="bicubic")[0, 0] > 0
            found["dense", "masks"] = dense[0, :, : cells[0], : cells[1]][:, small].mean(dim=1)
            grown = 1.5 if kind == "things" else 1.0
            half_w, half_h = (x1 - x0) / 2 * grown, (y1 - y0) / 2 * grown
            cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
            left, top = round(max(cx - half_w, 0)), round(max(cy - half_h, 0))
            right, bottom = round(min(cx + half_w, photo.width)), round(min(cy + half_h, photo.height))
            cut = photo.crop((left, top, right, bottom))
            crop = normalised(pasted(cut, 32, centre=True), clip)
            found["crop", "boxes"] = clip.encode_image(crop[None])[0]
            for (how, shape), region in found.items():
                cosines = F.cosine_similarity(region[None], texts)
                ranks[how, shape, kind][label].append(1 + int((cosines > cosines[label]).sum()))
    return {
        key: (
            sum(len(each) for each in classes.values()),
            sum(sum(rank <= 1 for rank in each) / len(each) for each in classes.values()) / len(classes),
            sum(sum(rank <= 5 for rank in each) / len(each) for each in classes.values()) / len(classes),
        )
        for key, classes in ranks.items()
    }


def as_table(report: RegionReport) -> dict[tuple[object, ...], tuple[object, ...]]:
    return {
        (row["encoder"], row["shape"], row["kind"]): (row["regions"], row["top1"], row["top5"])
        for row in report.table()
    }


@pytest.mark.parametrize(("batch", "crop_batch", "workers"), [(1, 64, 0), (3, 5, 2)])
def test_against_a_brute_force_evaluation(
    clip: Clip, reader: TinyReader, batch: int, crop_batch: int, workers: int
) -> None:
    bank = as_bank(clip, NAMES, "vild-14")
    report = evaluate_regions(clip, reader, words=bank, size=72, batch=batch, crop_batch=crop_batch, workers=workers)
    with torch.no_grad():
        expected = brute_force(clip, reader, bank.embeddings, 72)
    found = as_table(report)
    assert set(found) == set(expected)
    assert min(count for count, _, _ in expected.values()) > 10
    for key, (count, top1, top5) in expected.items():
        assert found[key][0] == count
        assert found[key][1:] == pytest.approx((top1, top5))
    assert report.images == len(reader)


def test_the_default_prompts_are_the_papers(clip: Clip, reader: TinyReader) -> None:
    report = evaluate_regions(clip, reader, size=32, limit=2)
    bank = as_bank(clip, NAMES, "vild-63")
    assert report.provenance.templates == "vild-63"
    assert as_table(report) == as_table(evaluate_regions(clip, reader, words=bank, size=32, limit=2))


def test_the_papers_size_is_64_cells(clip: Clip, reader: TinyReader) -> None:
    report = evaluate_regions(clip, reader, words=NAMES, templates="simple", how=["dense"], limit=1)
    assert report.provenance.image_size == (512, 512)


def test_a_window_is_that_of_the_dense_map(clip: Clip, reader: TinyReader) -> None:
    settings: dict[str, Any] = {"words": NAMES, "templates": "simple", "how": ["dense"], "size": 64}
    whole, large, small = (evaluate_regions(clip, reader, window=window, **settings) for window in (None, 8, 2))
    assert as_table(whole) == as_table(large) != as_table(small)
    assert [report.provenance.settings["window"] for report in (whole, large, small)] == [None, 8, 2]
    with pytest.raises(InputError, match="The window is -1"):
        evaluate_regions(clip, reader, window=-1, **settings)
    with pytest.raises(InputError, match="no meaning for a ResNet tower"):
        evaluate_regions(as_clip(resnet_clip()), reader, window="native", **settings)


def test_masked_crops_mask_tokens_and_the_fit_canvas(clip: Clip, reader: TinyReader) -> None:
    report = evaluate_regions(
        clip,
        reader,
        how=["masked-crop", "mask-token", "dense"],
        words=NAMES,
        templates="simple",
        size=64,
        canvas="fit",
        batch=3,
    )
    bank = as_bank(clip, NAMES)
    protocol = replace(CLIPSELF, max_regions=None)
    for how, shape in (("masked-crop", "masks"), ("mask-token", "masks"), ("dense", "masks"), ("dense", "boxes")):
        hits: dict[int, list[bool]] = defaultdict(list)
        for record in reader.records:
            if record.boxes is None or record.masks is None or record.labels is None:
                continue
            is_thing = torch.tensor(THINGS)[record.labels.clamp(min=0)]
            boxes = torch.where(is_thing[:, None], record.boxes, masks_to_boxes(record.masks))
            kept = [i for i in protocol.select(boxes).tolist() if record.labels[i] != -1]
            embeddings = clip.encode_regions(
                record.image,
                boxes=boxes[kept] if shape == "boxes" else None,
                masks=record.masks[kept] if shape == "masks" else None,
                how=how,
                size=64 if how == "dense" else None,
            )[0]
            best = (embeddings @ bank.embeddings.T).argmax(dim=1)
            for label, guess in zip(record.labels[kept].tolist(), best.tolist(), strict=True):
                hits[label].append(label == guess)
        for kind in ("things", "stuff"):
            classes = [each for label, each in hits.items() if THINGS[label] == (kind == "things")]
            expected = sum(sum(each) / len(each) for each in classes) / len(classes)
            assert report.recognition(how, shape, kind).macro(1) == pytest.approx(expected)


def test_the_world_end_to_end(clip: Clip, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    world = World(count=3, size=(96, 96))
    report = evaluate_regions(
        clip, world, size=96, templates="simple", on_progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert {row["encoder"] for row in report.table()} == {"dense", "crop"}
    regions = sum(world[i].count for i in range(3))
    dense = report.found["dense", "boxes"]
    assert int(dense.counts.sum()) + report.left_out == regions
    assert set(report.seconds) == {"dense", "crop", "total"}
    stored = json.loads(report.save(tmp_path / "report.json").read_text())
    assert stored == json.loads(report.to_json())
    assert stored["provenance"]["settings"]["mask_policy"] == "official"
    assert len(stored["rows"]) == 6
    assert stored["per_class"]


def test_words_may_have_synonyms(clip: Clip, reader: TinyReader) -> None:
    vocabulary = Vocabulary(NAMES, synonyms={"cat": ["kitten"]})
    report = evaluate_regions(clip, reader, words=vocabulary, templates="simple", size=32, limit=1)
    assert report.provenance.vocabulary == vocabulary.hash


def test_a_reader_with_boxes_alone_has_no_rows_of_masks(clip: Clip, reader: TinyReader) -> None:
    only = TinyReader(2)
    only.records = [replace(record, masks=None) for record in only.records]
    report = evaluate_regions(clip, only, words=NAMES, templates="simple", size=32)
    assert set(report.found) == {("dense", "boxes"), ("crop", "boxes")}
    with pytest.raises(InputError, match="masks were not evaluated"):
        report.recognition("dense", "masks", "things")


def test_a_reader_without_regions_gives_an_empty_report(clip: Clip, reader: TinyReader) -> None:
    empty = TinyReader(0)
    report = evaluate_regions(clip, empty, words=NAMES, templates="simple", size=32)
    assert report.table() == []
    assert not math.isnan(report.seconds["total"])


def test_the_protocol_decides_which_regions_count(clip: Clip, reader: TinyReader) -> None:
    protocol = RegionProtocol(min_area=400, max_regions=2)
    report = evaluate_regions(clip, reader, words=NAMES, templates="simple", size=32, protocol=protocol, how=["dense"])
    assert int(report.found["dense", "boxes"].counts.sum()) <= 2 * len(reader)
    assert report.left_out >= 6 * 7
    settings = json.loads(report.to_json())["provenance"]["settings"]
    assert (settings["min_area"], settings["max_area"], settings["max_regions"]) == (400, None, 2)


def test_wrong_input_is_refused(clip: Clip, reader: TinyReader) -> None:
    with pytest.raises(InputError, match="'crops'"):
        evaluate_regions(clip, reader, how=["crops"])
    with pytest.raises(InputError, match="empty"):
        evaluate_regions(clip, reader, how=[])
    with pytest.raises(InputError, match="canvas 'square'"):
        evaluate_regions(clip, reader, canvas="square")
    with pytest.raises(InputError, match="2 words for 7 names"):
        evaluate_regions(clip, reader, words=["a", "b"], templates="simple")
    unlabelled = TinyReader(1)
    unlabelled.records[0] = replace(unlabelled.records[0], labels=None)
    with pytest.raises(DataError, match="'r0'"):
        evaluate_regions(clip, unlabelled, words=NAMES, templates="simple")
