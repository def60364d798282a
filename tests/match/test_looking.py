"""Matchers that see details behind embeddings, against written-out formulas; and in files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from closeup.errors import InputError, ModelError
from closeup.match import Matcher, load_matcher, new_matcher, save_matcher, score, score_map
from closeup.match.matcher import Inputs, Seen
from closeup.match.matchers import KINDS, LOOKING
from tiny_towers import randomise

DIM, DETAILS = 12, 10
WIDE = DIM + DETAILS
WITH_COSINE = ("cosine", *LOOKING)


class Rows:
    """A bank of rows, each a label of its own."""

    def __init__(self, embeddings: Tensor) -> None:
        self.embeddings = embeddings
        self.owner = torch.arange(len(embeddings))

    def __len__(self) -> int:
        return len(self.owner)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def regions_of(count: int, seed: int = 0) -> Tensor:
    """Return embeddings of length 3 or so, and details about 7 of very different spread."""
    spread = torch.logspace(-2, 2, DETAILS)
    return torch.cat([random(count, DIM, seed=seed), 7 + spread * random(count, DETAILS, seed=seed + 1)], dim=1)


def seen_of(levels: tuple[int, ...] = (1, 3)) -> Seen:
    seen = Seen(levels, DETAILS, images="abc", how="dense")
    seen.learn(7 + 0.1 * random(DETAILS, seed=3), torch.logspace(-2, 2, DETAILS))
    return seen


def within(matcher: Matcher) -> Seen:
    assert matcher.seen is not None
    return matcher.seen


def fresh(kind: str, inputs: Inputs = "unit") -> Matcher:
    hidden = 9 if "mlp" in kind else None
    return new_matcher(kind, DIM, hidden=hidden, inputs=inputs, seen=seen_of())


def drawn(kind: str, inputs: Inputs = "unit") -> Matcher:
    """Return a matcher with random weights, biases too, and details' usual values as they were."""
    matcher = fresh(kind, inputs)
    randomise(matcher, 0)
    within(matcher).load_state_dict(seen_of().state_dict())
    return matcher


def written_out(matcher: Matcher, region: Tensor, text: Tensor) -> float:
    """Return the score of one region with one text, by numpy in double precision."""
    state = {name: weight.double().numpy() for name, weight in matcher.state_dict().items()}
    own, details = region.double().numpy()[:DIM], region.double().numpy()[DIM:]
    whole = np.concatenate(
        [math.sqrt(DIM) * own / np.linalg.norm(own), (details - state["seen.usual"]) / state["seen.spread"]]
    )
    words = text.double().numpy() / (np.linalg.norm(text) if matcher.inputs == "unit" else 1)

    def layer(name: str, value: np.ndarray) -> np.ndarray:
        out: np.ndarray = state[f"{name}.weight"] @ value + state[f"{name}.bias"]
        return out

    left, right = whole[:DIM], words
    if matcher.kind in ("linear", "linear-image"):
        left = layer("image.0", whole)
        right = layer("text.0", words) if matcher.kind == "linear" else words
    elif matcher.kind == "mlp":
        left, right = (
            np.tanh(layer(f"{side}.2", np.tanh(layer(f"{side}.0", value))))
            for side, value in (("image", whole), ("text", words))
        )
    elif matcher.kind == "residual":
        left, right = left + layer("image.added.0", whole), right + layer("text.added.0", words)
    elif matcher.kind == "residual-mlp":
        left, right = (
            value[:DIM] + layer(f"{side}.added.2", np.maximum(layer(f"{side}.added.0", value), 0))
            for side, value in (("image", whole), ("text", words))
        )
    cosine = float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))
    return 1 / (1 + math.exp(-cosine)) if matcher.kind in ("linear", "linear-image", "mlp") else cosine


@pytest.mark.parametrize("kind", WITH_COSINE)
@pytest.mark.parametrize("inputs", ["unit", "raw"])
@torch.no_grad()
def test_scores_are_the_formula(kind: str, inputs: Inputs) -> None:
    matcher, regions, texts = drawn(kind, inputs), regions_of(5), 2 * random(4, DIM, seed=9)
    expected = torch.tensor([[written_out(matcher, region, text) for text in texts] for region in regions])
    torch.testing.assert_close(matcher(regions, texts), expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(score(regions, Rows(texts), matcher), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("kind", WITH_COSINE)
@torch.no_grad()
def test_details_count_unless_it_is_the_cosine(kind: str) -> None:
    matcher, regions, texts = drawn(kind), regions_of(5), random(4, DIM, seed=9)
    for column in range(DIM, WIDE):
        changed = regions.clone()
        changed[:, column] += within(matcher).spread[column - DIM]
        assert torch.equal(matcher(changed, texts), matcher(regions, texts)) is (kind == "cosine")


@pytest.mark.parametrize("inputs", ["unit", "raw"])
@pytest.mark.parametrize("kind", ["cosine", "residual", "residual-mlp"])
def test_the_cosine_and_those_that_begin_as_it_are_that_of_the_first_part(kind: str, inputs: Inputs) -> None:
    matcher, cosine = fresh(kind, inputs), new_matcher("cosine", DIM, inputs=inputs)
    regions, texts, captions = regions_of(6), random(4, DIM, seed=9), 2 * random(6, 7, DIM, seed=10)
    for details in (regions[:, DIM:], -1e6 * random(6, DETAILS), torch.zeros(6, DETAILS)):
        whole = torch.cat([regions[:, :DIM], details], dim=1)
        torch.testing.assert_close(matcher(whole, texts), cosine(regions[:, :DIM], texts), atol=1e-6, rtol=0)
        own = matcher.of_own(whole, captions)
        torch.testing.assert_close(own, cosine.of_own(regions[:, :DIM], captions), atol=1e-6, rtol=0)
    if kind != "cosine":
        matcher(regions, texts).square().sum().backward()
        moving = [name for name, weight in matcher.named_parameters() if weight.grad is not None and weight.grad.any()]
        assert {name.split(".")[0] for name in moving} == {"image", "text"}


@pytest.mark.parametrize("kind", WITH_COSINE)
@torch.no_grad()
def test_captions_of_its_own_score_as_any(kind: str) -> None:
    matcher, regions, captions = drawn(kind), regions_of(5), random(5, 3, DIM, seed=9)
    expected = torch.stack([matcher(regions[row : row + 1], captions[row])[0] for row in range(5)])
    torch.testing.assert_close(matcher.of_own(regions, captions), expected, atol=1e-6, rtol=0)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(WITH_COSINE), st.integers(1, 20), st.integers(1, 20), st.integers(1, 40), st.integers(0, 99))
def test_a_score_is_the_affair_of_one_region_and_one_text(
    kind: str, regions: int, words: int, added: int, seed: int
) -> None:
    matcher, features, texts = drawn(kind), regions_of(regions), random(words + added, DIM, seed=9)
    with torch.no_grad():
        few, many = matcher(features, texts[:words]), matcher(features, texts)
        torch.testing.assert_close(many[:, :words], few, atol=1e-6, rtol=0)
        chance = torch.Generator().manual_seed(seed)
        rows, columns = (torch.randperm(count, generator=chance) for count in (regions, words + added))
        torch.testing.assert_close(matcher(features[rows], texts[columns]), many[rows][:, columns], atol=1e-6, rtol=0)
        torch.testing.assert_close(matcher(features[:1], texts), many[:1], atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_map_with_details_scores_as_its_places_do() -> None:
    matcher, bank = drawn("residual-mlp"), Rows(random(4, DIM, seed=9))
    maps = regions_of(24).reshape(2, 3, 4, WIDE).movedim(3, 1)
    scores = score_map(maps, bank, matcher)
    assert scores.shape == (2, 4, 3, 4)
    one = matcher(maps[1, :, 2, 3][None], bank.embeddings)[0]
    torch.testing.assert_close(scores[1, :, 2, 3], one, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", LOOKING)
def test_gradients_are_right(kind: str) -> None:
    matcher = drawn(kind).double()
    regions, captions = regions_of(2).double().requires_grad_(), random(2, 3, DIM, seed=9).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda one, many: matcher(one, many.flatten(0, 1)), (regions, captions))
    assert torch.autograd.gradcheck(matcher.of_own, (regions, captions))


@pytest.mark.parametrize("kind", WITH_COSINE)
def test_other_widths_are_refused(kind: str) -> None:
    matcher = drawn(kind)
    for regions, texts, message in (
        (random(2, DIM), random(3, DIM), "reads 10 details behind embeddings of 12 dimensions, and these are 12 wide"),
        (random(2, WIDE + 1), random(3, DIM), "these are 23 wide"),
        (random(2, WIDE), random(3, WIDE), "of 12 dimensions, and these have 22"),
    ):
        with pytest.raises(InputError, match=message):
            matcher(regions, texts)
        with pytest.raises(InputError, match=message):
            matcher.of_own(regions, texts[:2, None])


@pytest.mark.parametrize("kind", KINDS)
def test_which_kinds_look(kind: str) -> None:
    if kind in WITH_COSINE:
        assert new_matcher(kind, DIM, seen=seen_of()).seen is not None
    else:
        with pytest.raises(InputError, match="sees embeddings alone, without details"):
            new_matcher(kind, DIM, seen=seen_of())
    with pytest.raises(InputError):
        new_matcher(kind, None, seen=seen_of())
    assert new_matcher(kind, DIM).seen is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"levels": ()}, "one block or more"),
        ({"levels": (1, 1)}, "each once"),
        ({"levels": (-1,)}, "from 0"),
        ({"details": 0}, "details is 0"),
        ({"details": -4}, "details is -4"),
        ({"how": "mask-token"}, "Regions by 'mask-token'"),
        ({"how": "crops"}, "Did you mean 'crop'"),
    ],
)
def test_what_cannot_be_seen(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Seen(**{"levels": (1,), "details": 4, **wrong})


def test_details_are_brought_to_one_footing() -> None:
    table = regions_of(4000)
    seen = Seen((1, 3), DETAILS)
    seen.learn(table[:, DIM:].mean(dim=0), table[:, DIM:].std(dim=0, correction=0))
    found = seen(table)
    torch.testing.assert_close(found[:, DIM:].mean(dim=0), torch.zeros(DETAILS), atol=1e-3, rtol=0)
    torch.testing.assert_close(found[:, DIM:].std(dim=0), torch.ones(DETAILS), atol=1e-3, rtol=0)
    torch.testing.assert_close(found[:, :DIM].square().mean(dim=1), torch.ones(4000))
    torch.testing.assert_close(F.cosine_similarity(found[:, :DIM], table[:, :DIM]), torch.ones(4000))
    assert {name for name, _ in seen.named_buffers()} == {"usual", "spread"}
    assert not list(seen.parameters())


@pytest.mark.parametrize("value", [0.0, 0.3, 100.03, -3001.7])
def test_a_detail_that_never_changes_says_nothing(value: float) -> None:
    """Tables are in half precision: such a detail is another number there than when it is seen anew."""
    kept = float(np.float16(value))
    seen = Seen((0,), 1)
    seen.learn(torch.tensor([kept]), torch.tensor([0.0]))
    found = seen(torch.cat([random(3, DIM), torch.full((3, 1), value)], dim=1))
    assert bool((found[:, -1].abs() < 0.5).all())


def test_the_fingerprint_knows_what_is_seen() -> None:
    matcher = drawn("linear")
    told = [matcher.fingerprint]
    assert drawn("linear").fingerprint == told[0]
    for name in ("usual", "spread"):
        getattr(matcher.seen, name)[0] += 1
        told.append(matcher.fingerprint)
    matcher = drawn("linear")
    within(matcher).levels = (1, 2)
    told.append(matcher.fingerprint)
    assert len(set(told)) == 4
    cosines = new_matcher("cosine", DIM), new_matcher("cosine", DIM, seen=seen_of()), fresh("cosine", "raw")
    assert len({each.fingerprint for each in cosines}) == 3


@pytest.mark.parametrize("kind", WITH_COSINE)
def test_what_was_saved_comes_back(kind: str, tmp_path: Path) -> None:
    made = drawn(kind)
    again = load_matcher(save_matcher(made, tmp_path / "mine", {"text_fingerprint": "words"}))
    assert again.seen is not None
    assert (again.seen.levels, again.seen.details) == ((1, 3), DETAILS)
    assert (again.seen.images, again.seen.how, again.texts) == ("abc", "dense", "words")
    assert (again.fingerprint, again.training) == (made.fingerprint, False)
    for name, buffer in within(made).named_buffers():
        assert torch.equal(again.seen.get_buffer(name), buffer)
    regions, texts = regions_of(5), random(4, DIM, seed=9)
    assert torch.equal(again(regions, texts), made(regions, texts))

    small = load_matcher(save_matcher(made, tmp_path / "small", dtype="fp16"))
    torch.testing.assert_close(small(regions, texts), made(regions, texts), atol=2e-2, rtol=0)
    bare = load_matcher(save_matcher(new_matcher(kind, DIM), tmp_path / "bare"))
    assert bare.seen is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"levels": 3},
        {"levels": "13"},
        {"levels": ["1"]},
        {"levels": [[1], [3]]},
        {"levels": []},
        {"levels": None},
        {"levels": [1.5]},
        {"details": -10},
        {"details": 0},
        {"details": "10"},
        {"details": 10.0},
        {"details": None},
        {"details": 11},  # not as many as the weights are of
        {"how": "crops"},
        {"how": None},
        {"blocks": [1, 3]},
    ],
    ids=str,
)
def test_a_broken_card_is_told_of(wrong: dict[str, Any], tmp_path: Path) -> None:
    folder = save_matcher(drawn("linear"), tmp_path / "mine")
    card = json.loads((folder / "card.json").read_text())
    card["seen"] |= wrong
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match=r"makes no matcher|do not fit their card"):
        load_matcher(folder)


@pytest.mark.parametrize("seen", [None, [], 3, "seen", {}, {"levels": [1]}], ids=str)
def test_a_card_whose_seen_is_something_else(seen: object, tmp_path: Path) -> None:
    folder = save_matcher(drawn("linear"), tmp_path / "mine")
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "seen": seen}))
    with pytest.raises(ModelError, match="makes no matcher"):
        load_matcher(folder)
    del card["seen"]
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="do not fit their card"):
        load_matcher(folder)
    (folder / "card.json").write_text(json.dumps({**card, "matcher": "linear-text", "seen": {}}))
    with pytest.raises(ModelError, match="makes no matcher"):
        load_matcher(folder)
