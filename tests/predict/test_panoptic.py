from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from closeup._types import IGNORE
from closeup.data.coco_panoptic import CocoPanoptic
from closeup.data.world import World
from closeup.errors import InputError, ModelError
from closeup.heads.mask_proposer import MaskProposer, new_mask_proposer
from closeup.heads.maskformer import MaskFormer, MaskQueries
from closeup.match import cosine, fuse
from closeup.match.panoptic_merge import merge
from closeup.models.clip import Clip
from closeup.models.load import load
from closeup.models.mask_prompt import give_prompts
from closeup.predict.panoptic import LOOKS, panoptic
from closeup.predict.panoptic_result import PanopticResult, save_coco_panoptic
from closeup.predict.segment_masks import novel_marks
from closeup.predict.words import as_bank
from closeup.regions.parts import connected_parts
from closeup.text import Vocabulary
from tiny_clips import vit_clip
from tiny_towers import randomise

WORDS = ("star", "circle", "grass", "snow", "water")
SMALL = {"queries": 6, "channels": 32, "hidden": 16, "heads": 2, "layers": 2, "feed_forward": 32, "words_hidden": 24}
OPEN: dict[str, Any] = {"threshold": 0.0, "overlap": 0.0, "gaps": False, "smallest": 0.005}
"""Everything that is found and no speckle becomes a segment if it wins a pixel."""


@pytest.fixture(scope="module")
def clip() -> Clip:
    clip = load("tiny", device="cpu", precision="fp32")
    give_prompts(clip.tower, depth=2).tokens.data.normal_()
    return clip


@pytest.fixture(scope="module")
def proposer() -> MaskProposer:
    below = load("tiny", device="cpu", precision="fp32")
    made = new_mask_proposer(below, WORDS[:4], (False,) * 4, templates="simple", size=64, config=SMALL)
    randomise(made.head, 0)
    return made


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    return np.asarray(World("test", count=1)[0].load().resize((width, height)))


@torch.no_grad()
def by_hand(clip: Clip, proposer: MaskProposer, image: np.ndarray, how: str, weights: list[float]) -> Tensor:
    """Return each pixel's best word of a picture that fills the canvas from the left, mask by mask; IGNORE for none."""
    canvas, _ = proposer.clip.preprocess(image, policy="longest-pad-corner", size=proposer.size)
    height, width = image.shape[:2]
    found = proposer.head.find(canvas[None])
    logits = F.interpolate(found.masks, (64, 64), mode="bilinear")[0, :, :height, :width]
    text = torch.stack([F.normalize(clip.encode_text([f"a photo of a {word}."])[0], dim=0) for word in WORDS])
    best, words = torch.zeros(height, width), torch.full((height, width), IGNORE)
    for embedding, soft in zip(found.embeddings[0], logits.sigmoid(), strict=True):
        table = 100 * cosine(embedding[None], torch.cat([text, proposer.head.nothing]))[0]
        nothing = table.softmax(dim=0)[-1]
        for part in connected_parts((soft > 0.5)[None], smallest=round(0.005 * height * width))[0]:
            size = 64 if how == "dense" else None
            (seen,) = clip.encode_regions(image, masks=part[None], how=how, size=size)
            theirs = (clip.logit_scale * cosine(seen, text)).softmax(dim=1)
            fused = fuse(table[:-1].softmax(dim=0)[None], theirs, torch.tensor(weights))[0]
            shares = fused / fused.sum() * (1 - nothing)
            if shares.max() > nothing:
                loud = shares.max() * soft * part
                words[loud > best], best = shares.argmax(), torch.maximum(best, loud)
    return words


@pytest.mark.parametrize("how", LOOKS)
@pytest.mark.parametrize(("weight", "novel_weight"), [(0.35, 0.65), (0.0, 0.0), (1.0, 1.0)])
def test_words_are_those_of_masks_one_by_one(
    clip: Clip, proposer: MaskProposer, how: str, weight: float, novel_weight: float
) -> None:
    image = picture()
    result = panoptic(clip, proposer, image, WORDS, how=how, weight=weight, novel_weight=novel_weight, **OPEN)
    assert len(result) > 1
    expected = by_hand(clip, proposer, image, how, [weight] * 4 + [novel_weight])
    assert float((result.label_map == expected).float().mean()) > 0.999  # float sums may differ where two are as loud
    assert result.provenance.settings["novel_weight"] == novel_weight
    assert result.provenance.region_encoder == how


def test_a_word_is_learned_under_any_of_its_synonyms(proposer: MaskProposer) -> None:
    alike = Vocabulary(["disc", "sea", "snow"], synonyms={"disc": ["round", "Circle"], "sea": ["ocean"]})
    assert novel_marks(proposer, alike) == (False, True, False)


class Outlines(MaskFormer):
    """A head that outlines what it is told to, surely, and calls it by a word."""

    def told(self, planes: Tensor, embeddings: Tensor) -> None:
        dense = embeddings.new_zeros(1, embeddings.shape[1], 1, 1)
        self.found = MaskQueries(embeddings[None], (planes[None].float() - 0.5) * 40, dense)

    def find(self, images: Tensor) -> MaskQueries:
        return self.found


@pytest.fixture
def oracle(clip: Clip, proposer: MaskProposer) -> MaskProposer:
    bank = as_bank(clip, WORDS)
    return replace(proposer, head=Outlines(clip, bank.embeddings, (False,) * 5, proposer.head.config).eval())


def outlined(oracle: MaskProposer, clip: Clip, planes: Tensor, words: list[str]) -> MaskProposer:
    """Return a proposer that finds these planes; what is called "nothing" is no object."""
    assert isinstance(oracle.head, Outlines)
    known = dict(zip(WORDS, as_bank(clip, WORDS).embeddings, strict=True))
    known["nothing"] = oracle.head.nothing[0].detach()
    canvas = torch.zeros(len(planes), 64, 64)
    canvas[:, : planes.shape[1], : planes.shape[2]] = planes
    oracle.head.told(canvas, torch.stack([known[word] for word in words]))
    return oracle


def test_things_of_one_mask_are_told_apart_and_stuff_is_not(clip: Clip, oracle: MaskProposer) -> None:
    planes = torch.zeros(2, 48, 64)
    planes[0, 4:14, 4:14], planes[0, 30:40, 40:60] = 1, 1
    planes[1] = 1 - planes[0]
    planes[1, 20:24] = 0  # a strip of nothing cuts the grass in two
    found, image = outlined(oracle, clip, planes, ["star", "grass"]), picture()
    alone: dict[str, Any] = {"weight": 0.0, "novel_weight": 0.0, "gaps": False}
    result = panoptic(clip, found, image, WORDS, things=["star", "circle"], **alone)
    assert sorted(result.words) == ["grass", "star", "star"]
    assert result.things == (True, True, False, False, False)
    assert torch.equal(result.label_map == 0, planes[0] > 0)
    assert torch.equal(result.label_map == 2, planes[1] > 0)
    whole = panoptic(clip, found, image, WORDS, things=["star"], apart="whole", **alone)
    assert sorted(whole.words) == ["grass", "star"]
    everything = panoptic(clip, found, image, WORDS, **alone)
    assert sorted(everything.words) == ["grass", "grass", "star", "star"]
    bold = panoptic(clip, found, image, WORDS, smallest=0.05, **alone)
    assert sorted(bold.words) == ["grass", "grass", "star"]


def test_what_no_mask_claims_is_named_by_clip_alone(clip: Clip, oracle: MaskProposer) -> None:
    image, planes = picture(), torch.zeros(2, 48, 64)
    planes[0, :, :40] = 1
    planes[0, 10:30, 10:30] = 0  # a hole
    planes[1, :, 41:] = 1  # a seam of one pixel lies between
    found = outlined(oracle, clip, planes, ["grass", "snow"])
    settings: dict[str, Any] = {"things": ["star", "circle"], "weight": 0.0, "novel_weight": 0.0, "threshold": 0.0}
    result = panoptic(clip, found, image, WORDS, **settings)
    hole = torch.zeros(1, 48, 64, dtype=torch.bool)
    hole[0, 10:30, 10:30] = True
    (seen,) = clip.encode_regions(image, masks=hole, size=64)
    named = (clip.logit_scale * cosine(seen, as_bank(clip, WORDS).embeddings)).softmax(dim=1)[0]
    assert float(named.max()) in [pytest.approx(score, rel=1e-3) for score in result.scores.tolist()]
    assert bool((result.label_map[hole[0]] == named.argmax()).all())
    assert bool((result.places[:, 40] == IGNORE).all())
    without = panoptic(clip, found, image, WORDS, gaps=False, **settings)
    assert sorted(without.words) == ["grass", "snow"]
    assert bool((without.places[hole[0]] == IGNORE).all())


def test_of_two_masks_of_one_thing_one_stays(clip: Clip, oracle: MaskProposer) -> None:
    planes = torch.zeros(2, 48, 64)
    planes[0, 4:24, 4:24], planes[1, 5:24, 4:24] = 1, 1
    found = outlined(oracle, clip, planes, ["star", "circle"])
    settings: dict[str, Any] = {"weight": 0.0, "novel_weight": 0.0, "gaps": False}
    alone = panoptic(clip, found, picture(), WORDS, **settings)
    assert len(alone) == 1
    assert int((alone.places == 0).sum()) in (400, 380)


def test_no_mask_is_a_valid_result_and_one_mask_works(clip: Clip, oracle: MaskProposer, tmp_path: Path) -> None:
    for how in LOOKS:
        none = panoptic(
            clip, outlined(oracle, clip, torch.ones(1, 48, 64), ["nothing"]), picture(), WORDS, how=how, gaps=False
        )
        assert len(none) == 0
        assert bool((none.places == IGNORE).all())
        assert none.places.shape == none.size == (48, 64)
        assert isinstance(none.picture(), PIL.Image.Image)
        assert none.to_coco()["annotations"] == []
        one = panoptic(clip, outlined(oracle, clip, torch.ones(1, 48, 64), ["snow"]), picture(), WORDS, how=how, **OPEN)
        assert one.places.unique().tolist() == [0]
    assert none.save(tmp_path / "none.npz").is_file()
    nowhere = outlined(oracle, clip, torch.zeros(2, 48, 64), ["snow", "star"])
    assert len(panoptic(clip, nowhere, picture(), WORDS, gaps=False)) == 0
    assert panoptic(clip, nowhere, picture(), WORDS, threshold=0.0).places.unique().tolist() == [0]


def test_any_shape_of_picture(clip: Clip, proposer: MaskProposer) -> None:
    for size in ((30, 200), (101, 7), (64, 64)):
        assert panoptic(clip, proposer, picture(*size), WORDS, **OPEN).places.shape == size


def test_more_pixels_than_fit_stay_on_the_canvas(
    clip: Clip, proposer: MaskProposer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = panoptic(clip, proposer, picture(96, 128), WORDS, **OPEN)
    monkeypatch.setattr("closeup.predict.panoptic_parts.BUDGET", 1)
    coarse = panoptic(clip, proposer, picture(96, 128), WORDS, **OPEN)
    assert coarse.places.shape == fine.places.shape == (96, 128)
    assert torch.equal(coarse.places, coarse.places[::2, ::2].repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert float((coarse.label_map == fine.label_map).float().mean()) > 0.8


def test_progress_counts_parts(clip: Clip, proposer: MaskProposer) -> None:
    told: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        told.append((done, total))

    panoptic(clip, proposer, picture(), WORDS, on_progress=tell, **OPEN)
    ((count, total),) = told
    assert count == total > 2
    panoptic(clip, proposer, picture(), WORDS, how="masked-crop", batch=2, on_progress=tell, **OPEN)
    assert told[1:] == [(min(start + 2, total), total) for start in range(0, total, 2)]


def test_wrong_settings_are_said(clip: Clip, proposer: MaskProposer) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"how": "crop"}, "Unknown way to look at a mask: 'crop'"),
        ({"apart": "compnents"}, "'components'"),
        ({"weight": 1.5}, "weight is 1.5"),
        ({"novel_weight": -1.0}, "novel_weight is -1"),
        ({"threshold": 2.0}, "threshold is 2"),
        ({"overlap": -0.1}, "overlap is -0.1"),
        ({"smallest": 1.5}, "smallest is 1.5"),
        ({"batch": 0}, "batch is 0"),
        ({"things": ["stars"]}, "no name 'stars'"),
        ({"things": "star"}, "single text"),
    ]
    for changes, told in wrong:
        with pytest.raises(InputError, match=told):
            panoptic(clip, proposer, picture(), WORDS, **changes)
    with pytest.raises(InputError, match="no mask prompts"):
        panoptic(load("tiny", device="cpu", precision="fp32"), proposer, picture(), WORDS, how="mask-prompt", **OPEN)


def drawn(seed: int, count: int) -> PanopticResult:
    """Return a result merged from random masks."""
    generator = torch.Generator().manual_seed(seed)
    things = (True, False, True, False, True)
    probabilities = (2 * torch.randn(count, 6, generator=generator)).softmax(dim=1)
    masks = (torch.rand(count, 9, 13, generator=generator) - 0.5).clamp(min=0)
    merged = merge(probabilities, lambda row, window: masks[row][window], (9, 13), things, threshold=0.1, overlap=0.1)
    image = picture(9, 13)
    clip = load("tiny", device="cpu", precision="fp32")
    made = panoptic(clip, PROPOSER, image, WORDS).provenance
    return PanopticResult(image, (9, 13), merged.places, merged.labels, merged.scores, WORDS, things, made)


PROPOSER = new_mask_proposer(
    load("tiny", device="cpu", precision="fp32"), WORDS[:4], (False,) * 4, templates="simple", size=64, config=SMALL
)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**16), st.integers(0, 6))
def test_places_labels_and_masks_say_the_same(seed: int, count: int) -> None:
    result = drawn(seed, count)
    masks, label_map = result.masks, result.label_map
    assert masks.shape == (len(result), 9, 13)
    assert bool((masks.sum(dim=0) == (result.places != IGNORE)).all())
    for number, (mask, label) in enumerate(zip(masks, result.labels.tolist(), strict=True)):
        assert bool(mask.any())
        assert bool((result.places[mask] == number).all())
        assert bool((label_map[mask] == label).all())
        assert result.words[number] == WORDS[label]
    assert bool((label_map[result.places == IGNORE] == IGNORE).all())
    _, planes, labels, scores = result.labelled()
    assert planes is not None
    assert torch.equal(planes, masks)
    assert (labels.tolist(), scores.tolist()) == (result.labels.tolist(), result.scores.tolist())


def test_a_result_is_saved_in_every_form(tmp_path: Path) -> None:
    results = [drawn(seed, 5) for seed in (1, 2)]
    assert all(len(result) > 1 for result in results)
    with np.load(results[0].save(tmp_path / "a.npz")) as arrays:
        assert np.array_equal(arrays["places"], results[0].places)
        assert arrays["things"].tolist() == list(results[0].things)
        assert json.loads(str(arrays["provenance"]))["model"] == "tiny"
    document = json.loads(results[0].save(tmp_path / "a.json").read_text())
    assert [row["score"] for row in document["annotations"]] == pytest.approx(results[0].scores.tolist())
    assert results[0].save(tmp_path / "a.png").is_file()
    path = save_coco_panoptic(results, tmp_path / "pan.json", tmp_path / "pan")
    reader = CocoPanoptic(path, tmp_path / "pan")
    assert (reader.names, reader.things) == (WORDS, results[0].things)
    for result, record in zip(results, (reader[0], reader[1]), strict=True):
        assert record.masks is not None
        assert record.labels is not None
        assert torch.equal(record.masks, result.masks)
        assert torch.equal(record.labels, result.labels)
    with pytest.raises(InputError, match="no result"):
        save_coco_panoptic([], tmp_path / "none.json", tmp_path / "none")
    with pytest.raises(InputError, match="other names"):
        save_coco_panoptic([results[0], replace(results[1], names=("a",) * 5)], tmp_path / "b.json", tmp_path / "b")


def test_mask_tokens_of_a_model_without_a_class_token(proposer: MaskProposer) -> None:
    bare = vit_clip(pool_type="avg")
    with pytest.raises(ModelError, match="copies of a class token"):
        panoptic(bare, proposer, picture(), WORDS, how="mask-token", **OPEN)
