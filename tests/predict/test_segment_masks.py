from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from closeup._types import IGNORE
from closeup.data.record import Record
from closeup.data.world import World
from closeup.errors import InputError
from closeup.heads.mask_proposer import MaskProposer, new_mask_proposer
from closeup.match import cosine
from closeup.models.clip import Clip
from closeup.models.load import load
from closeup.models.mask_prompt import give_prompts
from closeup.predict.given_masks import GivenMasksScorer
from closeup.predict.mask_files import FoundMasks
from closeup.predict.results import SegmentationResult
from closeup.predict.scorers import Tell
from closeup.predict.segment import segment_by
from closeup.predict.segment_masks import OvSegScorer, novel_marks, outlined
from closeup.predict.words import Words, as_bank
from closeup.regions.masked_crops import masked_crops
from closeup.regions.parts import connected_parts, opened
from closeup.text import Vocabulary
from tiny_towers import randomise

WORDS = ("star", "circle", "grass", "snow", "water")
SMALL = {"queries": 6, "channels": 32, "hidden": 16, "heads": 2, "layers": 2, "feed_forward": 32, "words_hidden": 24}


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


def segment_masks(
    clip: Clip,
    proposer: MaskProposer,
    image: np.ndarray,
    words: Words,
    *,
    on_progress: Tell | None = None,
    **how: Any,  # noqa: ANN401
) -> SegmentationResult:
    return segment_by(OvSegScorer(clip, proposer, **how), image, words, on_progress=on_progress)


@dataclass
class These:
    masks: Tensor
    name: str = "these"
    fingerprint: str = ""

    def __call__(self, record: Record, picture: PIL.Image.Image) -> FoundMasks:
        return FoundMasks(self.masks)


def segment_given_masks(
    clip: Clip, image: np.ndarray, masks: Tensor, words: Words, *, how: str | None = None
) -> SegmentationResult:
    return segment_by(GivenMasksScorer(clip, These(masks), how), image, words)


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    return np.asarray(World("test", count=1)[0].load().resize((width, height)))


@torch.no_grad()
def by_hand(clip: Clip, proposer: MaskProposer, image: np.ndarray, weight: float, how: str) -> Tensor:
    """Return the word scores of a picture that fills the canvas from the left, mask by mask and crop by crop."""
    canvas, _ = proposer.clip.preprocess(image, policy="longest-pad-corner", size=proposer.size)
    height, width = image.shape[:2]
    found = proposer.head.find(canvas[None])
    logits = F.interpolate(found.masks, (64, 64), mode="bilinear")[0, :, :height, :width]
    text = torch.stack([F.normalize(clip.encode_text([f"a photo of a {word}."])[0], dim=0) for word in WORDS])
    total = torch.zeros(len(WORDS), height, width)
    for embedding, mask in zip(found.embeddings[0], logits.sigmoid(), strict=True):
        table = 100 * cosine(embedding[None], torch.cat([text, proposer.head.nothing]))[0]
        share = table.softmax(dim=0)[:-1] ** (1 - weight)
        if bool((mask > 0.4).any()):
            crops, shown = masked_crops(canvas[:, :height, :width], mask[None] > 0.4, clip.image_size)
            seen = clip.encode_masked(crops, shown) if how == "mask-prompt" else clip.encode_image(crops)
            share = share * (clip.logit_scale * cosine(seen, text)[0]).softmax(dim=0) ** weight
        total += share[:, None, None] * mask
    return total


@pytest.mark.parametrize("how", ["mask-prompt", "masked-crop"])
@pytest.mark.parametrize("weight", [0.0, 0.7, 1.0])
def test_scores_are_those_of_masks_one_by_one(clip: Clip, proposer: MaskProposer, weight: float, how: str) -> None:
    image = picture()
    result = segment_masks(clip, proposer, image, WORDS, weight=weight, how=how, batch=2)
    expected = by_hand(clip, proposer, image, weight, how)
    torch.testing.assert_close(result.cells, expected, atol=1e-4, rtol=1e-3)
    assert torch.equal(result.label_map, result.cells.argmax(dim=0))
    assert result.provenance.settings["weight"] == weight


def test_words_that_the_proposer_did_not_learn_may_lean_on_clip_alone(clip: Clip, proposer: MaskProposer) -> None:
    both = segment_masks(clip, proposer, picture(), WORDS, weight=0.3, novel_weight=1.0).cells
    assert torch.equal(both[:4], segment_masks(clip, proposer, picture(), WORDS, weight=0.3).cells[:4])
    assert torch.equal(both[4:], segment_masks(clip, proposer, picture(), WORDS, weight=1.0).cells[4:])


def test_the_best_synonym_speaks_for_a_word(clip: Clip, proposer: MaskProposer) -> None:
    one = Vocabulary(["star", "lawn"], synonyms={"lawn": ["grass"]})
    result = segment_masks(clip, proposer, picture(), one)
    assert result.names == ("star", "lawn")
    assert as_bank(clip, one).owner.tolist() == [0, 1, 1]


def test_no_mask_is_sure_enough_to_be_cut_out(clip: Clip, proposer: MaskProposer) -> None:
    result = segment_masks(clip, proposer, picture(), WORDS, threshold=0.999999)
    assert result.label_map.shape == (48, 64)
    assert bool(result.scores.isfinite().all())


def test_what_no_mask_covers_is_named_by_clip_alone(clip: Clip, proposer: MaskProposer) -> None:
    plain, gaps = (segment_masks(clip, proposer, picture(), WORDS, threshold=0.6, gaps=on) for on in (False, True))
    canvas, placement = proposer.clip.preprocess(picture(), policy="longest-pad-corner", size=proposer.size)
    found = outlined(proposer, canvas[None], placement, as_bank(clip, WORDS))
    left = ~(found.logits.sigmoid() > 0.6).any(dim=0)
    parts, _ = connected_parts(opened(left[None], 1), smallest=3)
    assert len(parts)
    crops, shown = masked_crops(found.image, parts, clip.image_size)
    seen = clip.encode_masked(crops, shown, normalize=True)
    shares = (clip.logit_scale * cosine(seen, as_bank(clip, WORDS).embeddings)).softmax(dim=1)
    expected = plain.cells + torch.einsum("pw,pij->wij", shares, parts.float())
    torch.testing.assert_close(gaps.cells, expected, atol=1e-4, rtol=1e-3)


def test_progress_counts_crops(clip: Clip, proposer: MaskProposer) -> None:
    told: list[tuple[int, int]] = []
    segment_masks(clip, proposer, picture(), WORDS, batch=4, on_progress=lambda *done: told.append(done))
    assert told
    assert told[-1][0] == told[-1][1]


def test_any_shape_of_picture(clip: Clip, proposer: MaskProposer) -> None:
    for size in ((30, 200), (101, 7), (64, 64)):
        assert segment_masks(clip, proposer, picture(*size), WORDS).label_map.shape == size


def test_given_masks_are_painted_surest_last_and_the_rest_is_background(clip: Clip) -> None:
    image, masks = picture(), torch.zeros(3, 48, 64, dtype=torch.bool)
    masks[0, :20, :20] = True
    masks[1, 10:30, 10:40] = True
    masks[2, 40:, 60:] = True
    result = segment_given_masks(clip, image, masks, WORDS)
    (regions,) = clip.encode_regions(image, masks=masks, how="mask-prompt")
    shares = (clip.logit_scale * cosine(regions, as_bank(clip, WORDS).embeddings)).softmax(dim=1)
    sure, labels = shares.max(dim=1)
    expected = torch.full((48, 64), IGNORE)
    for row in sure.argsort().tolist():
        expected[masks[row]] = labels[row]
    assert torch.equal(result.label_map, expected)
    assert int((result.label_map == IGNORE).sum()) == int((~masks.any(dim=0)).sum())
    order = torch.tensor([2, 0, 1])
    assert torch.equal(segment_given_masks(clip, image, masks[order], WORDS).label_map, expected)


@pytest.mark.parametrize("how", ["dense", "masked-crop", "mask-prompt"])
def test_no_mask_at_all_is_background_and_one_mask_works(clip: Clip, how: str) -> None:
    none = segment_given_masks(clip, picture(), torch.zeros(0, 48, 64, dtype=torch.bool), WORDS, how=how)
    assert bool((none.label_map == IGNORE).all())
    assert none.present == ()
    assert isinstance(none.picture(), PIL.Image.Image)
    one = segment_given_masks(clip, picture(), torch.ones(1, 48, 64, dtype=torch.bool), WORDS, how=how)
    assert len(one.present) == 1


@pytest.mark.parametrize("background", [0.5, "water"])
def test_given_masks_may_have_a_background(clip: Clip, background: float | str) -> None:
    scorer = GivenMasksScorer(clip, These(torch.eye(48, 64, dtype=torch.bool)[None]))
    result = segment_by(scorer, picture(), WORDS, background=background)
    assert not result.label_map.is_inference()
    assert bool((result.label_map[~torch.eye(48, 64, dtype=torch.bool)] == IGNORE).all())


def test_progress_counts_given_masks(clip: Clip) -> None:
    told: list[tuple[int, int]] = []
    scorer = GivenMasksScorer(clip, These(torch.ones(5, 48, 64, dtype=torch.bool)), batch=2)
    segment_by(scorer, picture(), WORDS, on_progress=lambda *done: told.append(done))
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_synonyms_that_the_proposer_learned_are_not_novel(clip: Clip, proposer: MaskProposer) -> None:
    words = Vocabulary(["sphere", "zebra"], synonyms={"sphere": ["circle"]})
    assert novel_marks(proposer, words) == (False, True)


def test_clip_alone_says_nothing_of_masks_that_it_never_saw(clip: Clip, proposer: MaskProposer) -> None:
    result = segment_masks(clip, proposer, picture(), WORDS, weight=1.0, threshold=0.999999)
    assert float(result.cells.abs().max()) == 0.0


def test_wrong_settings_are_said(clip: Clip, proposer: MaskProposer) -> None:
    bare = load("tiny", device="cpu", precision="fp32")
    with pytest.raises(InputError, match="no mask prompts"):
        segment_masks(bare, proposer, picture(), WORDS, how="mask-prompt")
    assert OvSegScorer(bare, proposer).looks == "masked-crop"
    wrong: list[dict[str, Any]] = [{"weight": 1.5}, {"threshold": -0.1}, {"batch": 0}, {"how": "dense"}]
    for changes in wrong:
        with pytest.raises(InputError):
            segment_masks(clip, proposer, picture(), WORDS, **changes)
