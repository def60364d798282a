from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from PIL import ImageOps
from torch import Tensor

from closeup._types import IGNORE
from closeup.data.record import Record
from closeup.errors import InputError
from closeup.evaluate import mean_iou
from closeup.heads.dense_predictor import DensePredictor, new_dense_predictor
from closeup.predict.banks import OwnWords, bank_for
from closeup.predict.dense_predictor import DensePredictorScorer
from closeup.predict.evaluate_segmentation import evaluate_scorer
from closeup.predict.pixels import best_words
from closeup.predict.scorers import DenseScorer, Scorer, Scores
from closeup.predict.segment import segment_by
from closeup.text import Vocabulary
from tiny_clips import as_clip, vit_clip
from tiny_towers import randomise, resnet_clip

WORDS = ("sky", "sign_symbol", "car", "tree")
SMALL: dict[str, Any] = {
    "channels": 16, "hidden": 16, "contexts": 2, "decoder_width": 16, "decoder_heads": 2, "decoder_layers": 1,
}  # fmt: skip
SIZE = 32


def made(novel: tuple[bool, ...] = (False,) * 4, **config: object) -> DensePredictor:
    clip = vit_clip(layers=4)
    head = new_dense_predictor(clip, WORDS, novel, templates="simple", size=SIZE, config={**SMALL, **config})
    randomise(head.head, 0)
    return head


def plain_resnet() -> DensePredictor:
    described = {"embed_dim": 24, "vision_cfg": {"layers": [1, 2, 1, 1], "width": 8, "image_size": 64}}
    config = {**SMALL, "language": False}
    clip = as_clip(resnet_clip(), described)
    head = new_dense_predictor(clip, WORDS, (False,) * 4, templates="simple", size=64, config=config)
    randomise(head.head, 0)
    return head


@pytest.fixture(scope="module")
def predictor() -> DensePredictor:
    return made()


def picture(height: int = 32, width: int = 56, seed: int = 3) -> PIL.Image.Image:
    rng = np.random.default_rng(seed)
    coarse = PIL.Image.fromarray(rng.integers(0, 255, (4, 7, 3), dtype=np.uint8))
    return coarse.resize((width, height), PIL.Image.Resampling.BICUBIC)


def scored(scorer: DensePredictorScorer, image: PIL.Image.Image, words: object = None, **more: Any) -> Scores:  # noqa: ANN401
    return scorer.score(Record("r", image, None), image, bank_for(scorer, words), **more)  # type: ignore[arg-type]


def seen(predictor: DensePredictor, image: PIL.Image.Image, height: int, width: int) -> Tensor:
    return predictor.head.backbone.clip.preprocess(image, policy="squash", size=(height, width))[0]


@torch.no_grad()
def read(predictor: DensePredictor, pixels: Tensor) -> Tensor:
    return predictor.head.read(pixels[None])[0][0]


def test_the_whole_picture_is_one_reading_of_the_head(predictor: DensePredictor) -> None:
    image, scorer = picture(), DensePredictorScorer(predictor)
    found = scored(scorer, image)
    assert found.canvas == (32, 56)
    assert found.scale == 1.0
    torch.testing.assert_close(found.cells, read(predictor, seen(predictor, image, 32, 56)))
    assert found.cells.device == predictor.head.backbone.clip.device
    assert torch.equal(found.cells, scored(scorer, image).cells)
    assert isinstance(scorer, Scorer)
    assert isinstance(scorer, OwnWords)
    assert not isinstance(DenseScorer(predictor.clip), OwnWords)


@pytest.mark.parametrize(("window", "stride", "tops", "lefts"), [
    (24, 16, (0, 8), (0, 16, 32)),
    (17, None, (0, 8), (0, 8, 16, 24, 32)),
    (32, 9, (0,), (0, 8, 16, 24)),
])  # fmt: skip
@pytest.mark.parametrize("batch", [1, 4])
def test_windows_against_a_loop_over_cells(
    predictor: DensePredictor,
    window: int,
    stride: int | None,
    tops: tuple[int, ...],
    lefts: tuple[int, ...],
    batch: int,
) -> None:
    image, told = picture(), []
    scorer = DensePredictorScorer(predictor, window, stride, batch=batch)
    found = scored(scorer, image, on_progress=lambda *done: told.append(done))
    pixels, side = seen(predictor, image, 32, 56), -(-window // 8) * 8
    votes: dict[tuple[int, int], list[Tensor]] = {}
    for top in tops:
        for left in lefts:
            part = read(predictor, pixels[:, top : top + side, left : left + side])
            # Four cells of the finest map lie along a patch of 8 pixels.
            for row in range(part.shape[1]):
                for col in range(part.shape[2]):
                    votes.setdefault((top // 2 + row, left // 2 + col), []).append(part[:, row, col])
    expected = torch.stack(
        [torch.stack([torch.stack(votes[row, col]).mean(dim=0) for col in range(28)], dim=1) for row in range(16)],
        dim=1,
    )
    torch.testing.assert_close(found.cells, expected, atol=1e-4, rtol=1e-4)
    count = len(tops) * len(lefts)
    assert [done for done, _ in told] == [min(first + batch, count) for first in range(0, count, batch)]
    assert {total for _, total in told} == {count}


@pytest.mark.parametrize("window", [56, 100])
def test_a_window_as_large_as_the_picture_is_the_whole(predictor: DensePredictor, window: int) -> None:
    whole = scored(DensePredictorScorer(predictor), picture())
    assert torch.equal(scored(DensePredictorScorer(predictor, window), picture()).cells, whole.cells)


def test_scales_and_mirrors_against_a_plain_loop(predictor: DensePredictor) -> None:
    image, told = picture(), []
    scorer = DensePredictorScorer(predictor, scales=(0.5, 1.5, 1.0), mirrored=True)
    found = scored(scorer, image, on_progress=lambda *done: told.append(done))
    looks = []
    for height, width in ((16, 32), (48, 80), (32, 56)):  # 28 and 84 pixels are not whole patches, 8 the unit
        pixels = seen(predictor, image, height, width)
        looks += [read(predictor, pixels), read(predictor, pixels.flip(2)).flip(2)]
    grown = [F.interpolate(look[None], (24, 40), mode="bilinear")[0] for look in looks]
    expected = torch.stack([look.softmax(dim=0) for look in grown]).mean(dim=0)
    assert found.canvas == (48, 80)
    assert found.scale is None
    torch.testing.assert_close(found.cells, expected)
    torch.testing.assert_close(found.cells.sum(dim=0), torch.ones(24, 40))
    assert told == [(done, 6) for done in range(1, 7)]


def test_one_scale_twice_has_the_best_words_of_one_look(predictor: DensePredictor) -> None:
    once = scored(DensePredictorScorer(predictor, scales=(1.0,)), picture())
    twice = scored(DensePredictorScorer(predictor, scales=(1.0, 1.0)), picture())
    torch.testing.assert_close(twice.cells, once.cells.softmax(dim=0))
    size = once.cells.shape[1], once.cells.shape[2]
    assert torch.equal(best_words(once.cells, size).labels, best_words(twice.cells, size).labels)


def test_a_mirrored_picture_has_mirrored_scores(predictor: DensePredictor) -> None:
    image, scorer = picture(), DensePredictorScorer(predictor, mirrored=True)
    there, back = scored(scorer, image).cells, scored(scorer, ImageOps.mirror(image)).cells.flip(2)
    torch.testing.assert_close(there, back)
    assert not torch.allclose(there, scored(DensePredictorScorer(predictor), image).cells.softmax(dim=0), atol=1e-3)


@pytest.mark.parametrize(("size", "canvas"), [
    ((1, 1), (32, 32)), ((1, 300), (16, 128)), ((30, 300), (16, 128)), ((300, 30), (128, 16)), ((7, 9), (32, 40)),
])  # fmt: skip
@pytest.mark.parametrize("more", [{}, {"window": 1}, {"window": 24, "scales": (0.1, 1.0), "mirrored": True}])
def test_any_shape_of_picture(
    predictor: DensePredictor, size: tuple[int, int], canvas: tuple[int, int], more: Mapping[str, Any]
) -> None:
    image = picture(*size)
    result = segment_by(DensePredictorScorer(predictor, **more), np.asarray(image))
    assert result.label_map.shape == size
    assert result.provenance.image_size == canvas
    assert bool(result.scores.isfinite().all())
    assert result.names == WORDS


def test_a_plain_pyramid_of_a_resnet() -> None:
    predictor = plain_resnet()
    image, scorer = picture(64, 128), DensePredictorScorer(predictor, window=64, stride=32)
    bank = scorer.bank_of()
    assert (bank.templates, bank.mean) == ("none", "none")
    assert not bank.embeddings.any()
    pixels = seen(predictor, image, 64, 128)
    total, count = torch.zeros(4, 16, 32), torch.zeros(16, 32)
    for left in (0, 32, 64):
        total[:, :, left // 4 : left // 4 + 16] += read(predictor, pixels[:, :, left : left + 64])
        count[:, left // 4 : left // 4 + 16] += 1
    torch.testing.assert_close(scored(scorer, image).cells, total / count, atol=1e-4, rtol=1e-4)


def test_logits_of_a_word_are_the_same_among_any_others(predictor: DensePredictor) -> None:
    scorer = DensePredictorScorer(predictor, 24)
    alone = scored(scorer, picture(), ["Car"]).cells
    everything = scored(scorer, picture()).cells
    some = scored(scorer, picture(), ["tree", "car"]).cells
    assert torch.equal(alone[0], everything[2])
    assert torch.equal(some, everything[[3, 2]])
    either = Vocabulary(["thing", "sky"], synonyms={"thing": ["tree", "lamp", "car"]})
    assert torch.equal(scored(scorer, picture(), either).cells[0], everything[2:].amax(dim=0))


def test_words_that_are_not_asked_for_do_not_compete(predictor: DensePredictor) -> None:
    scorer = DensePredictorScorer(predictor, scales=(1.0, 0.5))
    found = scored(scorer, picture(), ["car", "tree"]).cells
    torch.testing.assert_close(found.sum(dim=0), torch.ones(found.shape[1:]))
    result = segment_by(scorer, np.asarray(picture()), ["tree", "Sign Symbol"], background="SKY")
    assert result.names == ("tree", "Sign Symbol", "SKY")
    assert set(result.label_map.unique().tolist()) <= {IGNORE, 0, 1}
    sure = segment_by(scorer, np.asarray(picture()), background=1.0)
    assert bool((sure.label_map == IGNORE).all())


def test_the_bank_is_the_heads_own(predictor: DensePredictor) -> None:
    scorer = DensePredictorScorer(predictor)
    bank = bank_for(scorer, ["tree", "sky"])
    assert predictor.head.prompting is not None
    torch.testing.assert_close(bank.embeddings, F.normalize(predictor.head.prompting.bank[[3, 0]], dim=1))
    assert bank.names == ("tree", "sky")
    assert (bank.fingerprint, bank.templates) == (predictor.fingerprint, "learned contexts (2)")
    assert bank_for(scorer, bank) is bank
    assert bank_for(scorer).names == WORDS
    made_of = segment_by(scorer, np.asarray(picture()), bank).provenance
    assert made_of.settings["head_fingerprint"] == predictor.fingerprint
    assert (made_of.words, made_of.vocabulary) == (2, Vocabulary(["tree", "sky"]).hash)
    sentences = DensePredictorScorer(made(contexts=0)).bank_of()
    assert (sentences.templates, sentences.mean) == ("simple", "normalise-then-mean")


def test_what_is_not_the_heads_is_refused(predictor: DensePredictor) -> None:
    scorer, other = DensePredictorScorer(predictor), DensePredictorScorer(made(contexts=0))
    with pytest.raises(InputError, match=r"'lamp' is not among the 4 that 'untrained' learned"):
        bank_for(scorer, ["lamp", "sky"])
    with pytest.raises(InputError, match=r"'skies' is not among .*Did you mean 'sky'"):
        segment_by(scorer, np.asarray(picture()), background="skies", words=["tree"])
    with pytest.raises(InputError, match="not made by 'untrained'"):
        bank_for(scorer, other.bank_of())
    with pytest.raises(InputError, match="'vild-14' cannot be put around them now"):
        bank_for(scorer, ["sky"], "vild-14")
    with pytest.raises(InputError, match="background is 2"):
        bank_for(scorer, background=2.0)
    with pytest.raises(InputError, match="There are no words"):
        bank_for(DenseScorer(predictor.clip))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"window": 0}, "must be pixels"),
        ({"window": 24, "stride": -1}, "must be pixels"),
        ({"stride": 8}, "needs a window"),
        ({"window": 8, "stride": 16}, "needs a window of at least its size"),
        ({"scales": ()}, "must be positive"),
        ({"scales": (1.0, 0.0)}, "must be positive"),
        ({"scales": (float("nan"),)}, "must be positive"),
        ({"scales": (float("inf"),)}, "must be positive"),
        ({"batch": 0}, "at least one window"),
    ],
)
def test_settings_outside_their_range_are_refused(
    predictor: DensePredictor, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        DensePredictorScorer(predictor, **given)


class TwoRecords:
    """Two pictures with label maps whose names are some of the head's, in an order of their own."""

    names: tuple[str, ...] = ("Tree", "sky", "sign symbol")
    things: tuple[bool, ...] = (False, False, True)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int, /) -> Record:
        labels = torch.randint(-1, 3, (32, 56), generator=torch.Generator().manual_seed(index))
        return Record(f"r{index}", picture(seed=index), (32, 56), label_map=labels)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_is_measured_in_its_own_names(workers: int) -> None:
    scorer, reader = DensePredictorScorer(made((False, False, True, True))), TwoRecords()
    report = evaluate_scorer(scorer, reader, workers=workers)
    confusion = torch.zeros(3, 4, dtype=torch.long)
    for index in range(2):
        record = reader[index]
        assert record.label_map is not None
        found = segment_by(scorer, record.load(), reader.names).label_map
        for true in range(3):
            for label in range(3):
                confusion[true, label] += ((record.label_map == true) & (found == label)).sum()
    assert torch.equal(report.found.confusion, confusion)
    assert report.summary()["miou"] == pytest.approx(mean_iou(confusion))
    assert report.novel == (True, False, False)


def test_names_that_the_head_does_not_know_are_told() -> None:
    reader = TwoRecords()
    reader.names = ("tree", "lamp", "sky")
    scorer = DensePredictorScorer(made())
    with pytest.raises(InputError, match=r"names of the data set do not do as words: The word 'lamp'.*one for each"):
        evaluate_scorer(scorer, reader)
    assert evaluate_scorer(scorer, reader, words=["tree", "car", "sky"]).images == 2
