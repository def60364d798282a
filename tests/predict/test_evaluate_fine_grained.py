from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from closeup._types import Embeddings
from closeup.data.record import Description, Record
from closeup.errors import DataError, InputError
from closeup.geometry import masks_to_boxes
from closeup.match.matcher import Matcher, Normalisation
from closeup.models.clip import Clip
from closeup.predict import FineGrainedReport, evaluate_fine_grained
from closeup.regions.masked_crops import OVSEG
from closeup.text import Templates
from tiny_clips import picture

COLOURS = ("red", "blue", "green", "black", "white")
PATTERNS = ("striped", "dotted", "plain")


class Bilinear(Matcher):
    """Scores by a matrix between raw embeddings: lengths matter."""

    def __init__(self, dim: int) -> None:
        super().__init__("bilinear", dim, inputs="raw")
        self.weight = nn.Parameter(torch.randn(dim, dim, generator=torch.Generator().manual_seed(0)))
        self.offset = nn.Parameter(torch.randn(dim, generator=torch.Generator().manual_seed(1)))

    def forward(
        self, regions: Float[Tensor, "regions dim"], texts: Float[Tensor, "texts text_dim"]
    ) -> Float[Tensor, "regions texts"]:
        return (regions @ self.weight + self.offset).tanh() @ texts.T

    def of_own(
        self,
        regions: Float[Tensor, "regions dim"],
        captions: Float[Tensor, "regions captions text_dim"],
        normalisation: Normalisation = "features",
    ) -> Float[Tensor, "regions captions"]:
        bent = (regions @ self.weight + self.offset).tanh()
        return torch.einsum("nd,njd->nj", bent, captions)


class TinyReader:
    """Pictures of several sizes; regions with two to six wrong captions; every third record describes nothing."""

    names = ("thing",)
    things = (True,)

    def __init__(self, count: int = 7, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def below(limit: int) -> int:
            return int(torch.randint(limit, (1,), generator=generator))

        self.records = []
        for index in range(count):
            height, width = 40 + below(50), 40 + below(50)
            image = PIL.Image.fromarray(picture(height, width, seed=index).numpy())
            if index % 3 == 2:
                self.records.append(Record(f"r{index}", image, (height, width)))
                continue
            masks = torch.zeros(1 + below(3), height, width, dtype=torch.bool)
            for plane in masks:
                top, left = below(height - 6), below(width - 6)
                plane[top : top + 4 + below(height), left : left + 4 + below(width)] = True
                plane[top + 1, left + 1] = False
            boxes = masks_to_boxes(masks)
            boxes[:, 2:] -= 0.4
            attributes, descriptions = [], []
            for _ in masks:
                colour, pattern = below(len(COLOURS)), below(len(PATTERNS))
                others = [each for each in COLOURS if each != COLOURS[colour]]
                wrong = [f"A {each} {PATTERNS[pattern]} cup." for each in others]
                wrong += [f"A {COLOURS[colour]} {each} cup." for each in PATTERNS if each != PATTERNS[pattern]]
                descriptions.append(
                    Description(f"A {COLOURS[colour]} {PATTERNS[pattern]} cup.", tuple(wrong[: 2 + below(5)]))
                )
                attributes.append({"colour": COLOURS[colour], "pattern": PATTERNS[pattern]})
            self.records.append(
                Record(
                    id=f"r{index}",
                    image=image,
                    size=(height, width),
                    boxes=boxes,
                    masks=masks,
                    attributes=tuple(attributes),
                    descriptions=tuple(descriptions),
                )
            )

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int, /) -> Record:
        return self.records[index]


@pytest.fixture(scope="module")
def reader() -> TinyReader:
    return TinyReader()


def raw(clip: Clip, cut: PIL.Image.Image) -> Tensor:
    """Return the embedding of a picture: short side to the size, its middle, as OpenAI's preprocessing does."""
    side = clip.image_size[0]
    factor = side / min(cut.size)
    small = cut.resize((int(cut.width * factor), int(cut.height * factor)), PIL.Image.Resampling.BICUBIC)
    left, top = round((small.width - side) / 2), round((small.height - side) / 2)
    small = small.crop((left, top, left + side, top + side))
    pixels = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(side, side, 3).permute(2, 0, 1) / 255
    pixels = (pixels - torch.tensor(clip.mean)[:, None, None]) / torch.tensor(clip.std)[:, None, None]
    return clip.encode_image(pixels[None])[0]


def one_by_one(
    clip: Clip, reader: TinyReader, matcher: Matcher | None, scale: float, negatives: int
) -> tuple[list[int], list[list[float]]]:
    """Return ranks of items with enough wrong captions, and the scores of all, one caption and one crop at a time."""
    ranks, scores = [], []
    for record in reader.records:
        if record.boxes is None:
            continue
        photo = record.image
        assert isinstance(photo, PIL.Image.Image)
        for (x0, y0, x1, y1), said in zip(record.boxes.tolist(), record.descriptions, strict=True):
            more, higher = (x1 - x0) * (scale - 1) / 2, (y1 - y0) * (scale - 1) / 2
            left, top = math.floor(max(x0 - more, 0)), math.floor(max(y0 - higher, 0))
            right, bottom = math.ceil(min(x1 + more, photo.width)), math.ceil(min(y1 + higher, photo.height))
            region = raw(clip, photo.crop((left, top, right, bottom)))
            row = []
            for text in (said.right, *said.wrong[:negatives]):
                caption = clip.encode_text([text], normalize=False)[0]
                if matcher is None:
                    row.append(float(torch.cosine_similarity(region, caption, dim=0)))
                else:
                    row.append(float(matcher(region[None], caption[None])))
            scores.append(row)
            if len(said.wrong) >= negatives:
                ranks.append(sum(each >= row[0] for each in row))
    return ranks, scores


@pytest.mark.parametrize("scale", [1.0, 1.7])
@pytest.mark.parametrize("learned", [False, True])
@torch.no_grad()
def test_ranks_are_those_of_a_loop_over_regions_and_captions(
    clip: Clip, reader: TinyReader, learned: bool, scale: float
) -> None:
    matcher = Bilinear(clip.dim) if learned else None
    report = evaluate_fine_grained(clip, reader, negatives=4, matcher=matcher, scale=scale, batch=3)
    ranks, scores = one_by_one(clip, reader, matcher, scale, 4)
    assert 0 < len(ranks) < len(scores)
    for item, row in zip(report.items, scores, strict=True):
        torch.testing.assert_close(item.scores, torch.tensor(row), atol=2e-4, rtol=2e-4)
    found = report.ranks()
    assert found.ranks.tolist() == ranks
    assert found.left_out == len(scores) - len(ranks)
    assert report.images == len(reader)


@pytest.mark.parametrize("how", ["dense", "crop", "masked-crop", "mask-token"])
def test_every_region_encoder_ranks_its_own_embeddings(clip: Clip, reader: TinyReader, how: str) -> None:
    report = evaluate_fine_grained(clip, reader, negatives=2, how=how, batch=2, workers=0)
    items = iter(report.items)
    for record in reader.records:
        if not record.descriptions:
            continue
        regions: Embeddings | None = None
        if how != "crop":
            shapes: dict[str, Any] = {"boxes": [record.boxes]} if how == "dense" else {"masks": [record.masks]}
            crop = OVSEG if how == "masked-crop" else None
            (regions,) = clip.encode_regions([record.image], how=how, crop=crop, **shapes)
        for row, said in enumerate(record.descriptions):
            item = next(items)
            assert (item.record, item.region, item.description) == (record.id, row, said)
            if regions is not None:
                texts = clip.encode_text([said.right, *said.wrong[:2]])
                torch.testing.assert_close(item.scores, texts @ regions[row], atol=1e-5, rtol=0)
    assert next(items, None) is None
    assert report.provenance.region_encoder == how


def test_a_matcher_sees_the_map_as_the_tower_gives_it(clip: Clip, reader: TinyReader) -> None:
    matcher = Bilinear(clip.dim)
    record, boxes = reader[0], reader[0].boxes
    assert boxes is not None
    item = evaluate_fine_grained(clip, reader, negatives=2, matcher=matcher, how="dense", limit=1).items[0]
    (regions,) = clip.encode_regions([record.image], boxes=[boxes], normalize=False)
    texts = clip.encode_text([item.description.right, *item.description.wrong[:2]], normalize=False)
    with torch.no_grad():
        torch.testing.assert_close(item.scores, matcher(regions[:1], texts)[0], atol=1e-4, rtol=1e-4)
    assert not item.scores.requires_grad


def test_batches_and_workers_change_nothing(clip: Clip, reader: TinyReader) -> None:
    told: list[tuple[int, int]] = []
    one = evaluate_fine_grained(clip, reader, negatives=4, batch=1, workers=0)
    other = evaluate_fine_grained(
        clip, reader, negatives=4, batch=64, workers=3, on_progress=lambda *done: told.append(done)
    )
    assert told[-1] == (len(reader), len(reader))
    assert one.ranks().ranks.tolist() == other.ranks().ranks.tolist()
    for first, second in zip(one.items, other.items, strict=True):
        torch.testing.assert_close(first.scores, second.scores, atol=1e-5, rtol=0)
    assert one.provenance == other.provenance


def test_a_caption_is_embedded_once(clip: Clip, reader: TinyReader, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    encode_text = clip.encode_text

    def watched(texts: Sequence[str], *, normalize: bool = True) -> Embeddings:
        seen.extend(texts)
        return encode_text(texts, normalize=normalize)

    monkeypatch.setattr(clip, "encode_text", watched)
    report = evaluate_fine_grained(clip, reader, negatives=3, batch=2)
    asked = {
        text for record in reader.records for each in record.descriptions for text in (each.right, *each.wrong[:3])
    }
    assert sorted(seen) == sorted(asked)
    assert report.provenance.words == len(asked)


def test_fewer_wrong_captions_need_no_second_run(clip: Clip, reader: TinyReader) -> None:
    whole = evaluate_fine_grained(clip, reader, negatives=5)
    fewer = evaluate_fine_grained(clip, reader, negatives=2)
    assert whole.ranks(2).ranks.tolist() == fewer.ranks().ranks.tolist()
    with pytest.raises(InputError, match="among 3 wrong captions are wanted, and 2 were asked"):
        fewer.ranks(3)


def test_templates_are_averaged_as_the_tower_gives_them(clip: Clip, reader: TinyReader) -> None:
    templates = Templates("two", "", ("{}", "a photo: {}"))
    report = evaluate_fine_grained(clip, reader, negatives=2, templates=templates, limit=1, how="dense")
    record, item, boxes = reader[0], report.items[0], reader[0].boxes
    assert boxes is not None
    (regions,) = clip.encode_regions([record.image], boxes=[boxes])
    for score, text in zip(item.scores, (item.description.right, *item.description.wrong), strict=False):
        mean = clip.encode_text([text, f"a photo: {text}"], normalize=False).mean(dim=0)
        torch.testing.assert_close(score, F.normalize(mean, dim=0) @ regions[0], atol=1e-5, rtol=0)
    assert report.provenance.templates == "two"


def test_families_tell_which_change_went_unseen(clip: Clip, reader: TinyReader) -> None:
    report = evaluate_fine_grained(clip, reader, negatives=6)
    expected: dict[str, list[bool]] = {"colour": [], "pattern": []}
    for item in report.items:
        right = item.description.right.split()
        for score, wrong in zip(item.scores[1:].tolist(), item.description.wrong, strict=True):
            differs = [place for place, word in enumerate(wrong.split()) if word != right[place]]
            expected["colour" if differs == [1] else "pattern"].append(score < float(item.scores[0]))
    assert report.families() == {
        family: {"pairs": len(each), "below": sum(each) / len(each)} for family, each in expected.items()
    }


def test_report_is_fit_for_json(clip: Clip, reader: TinyReader) -> None:
    matcher = Bilinear(clip.dim)
    report = evaluate_fine_grained(clip, reader, negatives=4, matcher=matcher)
    told = json.loads(report.to_json())
    assert told["summary"] == report.summary()
    assert told["summary"]["chance_rank"] == 3.0
    assert [row["scores"] for row in told["items"]] == [item.scores.tolist() for item in report.items]
    settings = told["provenance"]["settings"]
    assert (settings["matcher"], settings["negatives"], settings["scale"]) == ("bilinear", 4, 1.0)
    plain = evaluate_fine_grained(clip, reader, negatives=4)
    assert plain.provenance.settings["matcher"] == "cosine"
    assert isinstance(plain, FineGrainedReport)


class Bare(TinyReader):
    """Records of which something is taken away."""

    def __init__(self, **gone: tuple[()] | None) -> None:
        super().__init__(3)
        self.records = [
            Record(
                each.id,
                each.image,
                each.size,
                **{"boxes": each.boxes, "masks": each.masks, "descriptions": each.descriptions} | gone,  # type: ignore[arg-type]
            )
            for each in self.records
        ]


def test_what_does_not_fit_is_said(clip: Clip, reader: TinyReader) -> None:
    with pytest.raises(InputError, match="negatives is 0"):
        evaluate_fine_grained(clip, reader, negatives=0)
    with pytest.raises(InputError, match="Unknown region encoder 'crops'"):
        evaluate_fine_grained(clip, reader, negatives=2, how="crops")
    with pytest.raises(InputError, match="cuts nothing out"):
        evaluate_fine_grained(clip, reader, negatives=2, how="dense", scale=1.5)
    with pytest.raises(InputError, match="enlarge is -1"):
        evaluate_fine_grained(clip, reader, negatives=2, scale=-1.0)
    with pytest.raises(InputError, match=r"bilinear.* 5 dimensions"):
        evaluate_fine_grained(clip, reader, negatives=2, matcher=Bilinear(5))
    with pytest.raises(InputError, match="batch is 0"):
        evaluate_fine_grained(clip, reader, negatives=2, batch=0)
    with pytest.raises(DataError, match="None of 3 records describes a region"):
        evaluate_fine_grained(clip, Bare(descriptions=()), negatives=2)
    with pytest.raises(DataError, match="'r0' has no masks"):
        evaluate_fine_grained(clip, Bare(masks=None), negatives=2, how="masked-crop")
    with pytest.raises(DataError, match="'r0' has no boxes"):
        evaluate_fine_grained(clip, Bare(masks=None, boxes=None), negatives=2)


def test_masks_alone_have_boxes(clip: Clip) -> None:
    assert len(evaluate_fine_grained(clip, Bare(boxes=None), negatives=2).items) > 0
