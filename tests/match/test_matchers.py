"""The matching functions against the official ones, against torch's own attention, and by their properties."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from closeup.errors import InputError, ModelError
from closeup.match import Matcher, new_matcher, score, score_map
from closeup.match import attention as attention_module
from closeup.match.attention import AttentionMatcher
from closeup.match.matcher import Inputs
from closeup.match.matchers import KINDS
from closeup.match.official_matchers import from_official
from closeup.match.projection import ProjectionMatcher
from goldens import Golden, assert_close, cases
from tiny_towers import randomise

OFFICIAL = {
    "linear_both": "linear",
    "linear_visual": "linear-image",
    "linear_text": "linear-text",
    "mlp": "mlp",
    "mha": "attention",
}
WIDTH = 24


class Rows:
    """A bank of rows, a label for each."""

    def __init__(self, embeddings: Tensor, owner: list[int]) -> None:
        self.embeddings = embeddings
        self.owner = torch.tensor(owner)

    def __len__(self) -> int:
        return int(self.owner.max()) + 1


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drawn(kind: str, inputs: Inputs = "unit") -> Matcher:
    """Return a matcher with random weights, biases too."""
    matcher = new_matcher(kind, WIDTH, inputs=inputs)
    randomise(matcher, 0)
    return matcher


@pytest.mark.parametrize("golden", cases("fgclip_matchers"))
@pytest.mark.parametrize("name", OFFICIAL)
def test_the_official_matchers(golden: Golden, name: str) -> None:
    matcher = from_official(golden.weights(f"w/{name}/"), name, heads=golden.config["heads"] if name == "mha" else None)
    assert matcher.kind == OFFICIAL[name]
    assert (matcher.dim, matcher.inputs) == (golden.config["D"], "raw")
    regions, texts, captions = golden["in/v"], golden["in/t"], golden["in/t_fgovd"]
    with torch.no_grad():
        assert_close(matcher(regions, texts), golden[f"out/{name}/matrix"])
        assert_close(matcher.of_own(regions, captions, "captions"), golden[f"out/{name}/fgovd"])
        if isinstance(matcher, ProjectionMatcher):
            assert_close(matcher.embed_regions(regions), golden[f"out/{name}/emb_v"])
            assert_close(matcher.embed_texts(texts), golden[f"out/{name}/emb_t"])


@pytest.mark.parametrize("golden", cases("fgclip_matchers"))
@pytest.mark.parametrize("inputs", ["unit", "raw"])
def test_the_cosine_is_the_official_one_whatever_lengths_are(golden: Golden, inputs: Inputs) -> None:
    matcher = new_matcher("cosine", inputs=inputs)
    assert_close(matcher(golden["in/v"], golden["in/t"]), golden["out/cosine/matrix"])


@pytest.mark.parametrize("kind", KINDS)
def test_own_captions_score_as_among_all(kind: str) -> None:
    matcher = drawn(kind)
    regions, captions = random(5, WIDTH), random(5, 7, WIDTH, seed=1)
    each = torch.cat([matcher(region[None], own) for region, own in zip(regions, captions, strict=True)])
    torch.testing.assert_close(matcher.of_own(regions, captions), each, atol=1e-6, rtol=0)


def test_attention_is_torchs_over_three_tokens() -> None:
    matcher = drawn("attention", "raw")
    assert isinstance(matcher, AttentionMatcher)
    regions, texts = 5 * random(6, WIDTH), 5 * random(4, WIDTH, seed=1)
    expected = torch.empty(6, 4)
    for row, region in enumerate(regions):
        for col, text in enumerate(texts):
            tokens = torch.stack([matcher.token(torch.ones(1)), region, text])[None]
            expected[row, col] = matcher.attention(tokens, tokens, tokens)[0][0, 0, 0].sigmoid()
    torch.testing.assert_close(matcher(regions, texts), expected, atol=1e-5, rtol=0)


def test_attention_in_blocks_is_attention_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    matcher, regions, texts = drawn("attention"), random(23, WIDTH), random(4, WIDTH, seed=1)
    whole = matcher(regions, texts)
    monkeypatch.setattr(attention_module, "BUDGET", 100)
    torch.testing.assert_close(matcher(regions, texts), whole, atol=1e-6, rtol=0)
    assert matcher(regions[:0], texts).shape == (0, 4)
    assert matcher(regions, texts[:0]).shape == (23, 0)


def test_attention_bears_logits_of_any_size() -> None:
    matcher = drawn("attention", "raw")
    regions, texts = (1e4 * random(6, WIDTH, seed=seed) for seed in (0, 1))
    assert bool(matcher(regions, texts).isfinite().all())


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_right(kind: str) -> None:
    matcher = drawn(kind).double()
    regions, captions = random(2, WIDTH).double().requires_grad_(), random(2, 3, WIDTH, seed=1).double()
    captions.requires_grad_()
    assert torch.autograd.gradcheck(lambda one, many: matcher(one, many.flatten(0, 1)), (regions, captions))
    assert torch.autograd.gradcheck(matcher.of_own, (regions, captions))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inputs", ["unit", "raw"])
def test_the_length_of_embeddings(kind: str, inputs: Inputs) -> None:
    matcher = drawn(kind, inputs)
    regions, texts = 3 * random(4, WIDTH), 5 * random(6, WIDTH, seed=1)
    same = torch.allclose(matcher(regions, texts), matcher(7 * regions, texts / 3), atol=1e-6)
    assert same == (inputs == "unit" or kind == "cosine")


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_scores_as_its_places_do(kind: str) -> None:
    matcher, maps = drawn(kind), random(2, WIDTH, 3, 4)
    bank = Rows(random(5, WIDTH, seed=1), [0, 1, 1, 2, 0])
    scores = score_map(maps, bank, matcher)
    assert scores.shape == (2, 3, 3, 4)
    plain = matcher(maps[1, :, 2, 3][None], bank.embeddings)[0]
    expected = torch.stack([plain[[0, 4]].max(), plain[1:3].max(), plain[3]])
    torch.testing.assert_close(scores[1, :, 2, 3], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(score(maps[:, :, 0, 0], bank, matcher), scores[:, :, 0, 0], atol=1e-6, rtol=0)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(KINDS), st.integers(1, 40), st.integers(1, 40), st.integers(1, 70))
def test_adding_words_leaves_raw_scores(kind: str, regions: int, words: int, added: int) -> None:
    matcher, features, texts = drawn(kind), random(regions, WIDTH), random(words + added, WIDTH, seed=1)
    few = score(features, Rows(texts[:words], [*range(words)]), matcher)
    many = score(features, Rows(texts, [*range(words + added)]), matcher)
    torch.testing.assert_close(many[:, :words], few, rtol=0, atol=1e-6)


def test_the_cosine_matcher_is_no_matcher() -> None:
    regions, bank = random(4, WIDTH), Rows(random(5, WIDTH, seed=1), [0, 1, 1, 2, 0])
    torch.testing.assert_close(score(regions, bank, new_matcher("cosine")), score(regions, bank))


@pytest.mark.parametrize("kind", ["residual", "residual-mlp"])
@pytest.mark.parametrize("inputs", ["unit", "raw"])
def test_residual_matchers_begin_as_the_cosine_and_can_leave_it(kind: str, inputs: Inputs) -> None:
    matcher, cosine = new_matcher(kind, WIDTH, inputs=inputs), new_matcher("cosine", inputs=inputs)
    regions, texts, captions = 3 * random(6, WIDTH), random(5, WIDTH, seed=1), 2 * random(6, 7, WIDTH, seed=2)
    torch.testing.assert_close(matcher(regions, texts), cosine(regions, texts), atol=1e-6, rtol=0)
    torch.testing.assert_close(matcher.of_own(regions, captions), cosine.of_own(regions, captions), atol=1e-6, rtol=0)
    matcher(regions, texts).square().sum().backward()
    moving = [name for name, weight in matcher.named_parameters() if weight.grad is not None and weight.grad.any()]
    assert {name.split(".")[0] for name in moving} == {"image", "text"}


def test_residual_matchers_add_to_embeddings() -> None:
    matcher = drawn("residual-mlp")
    assert isinstance(matcher, ProjectionMatcher)
    state, unit = matcher.state_dict(), F.normalize(random(6, WIDTH), dim=1)
    first, second = ((state[f"text.added.{layer}.weight"], state[f"text.added.{layer}.bias"]) for layer in (0, 2))
    expected = unit + F.linear(F.relu(F.linear(unit, *first)), *second)
    torch.testing.assert_close(matcher.embed_texts(random(6, WIDTH)), F.normalize(expected, dim=1))


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("cosine", 0),
        ("linear", 525_312),
        ("linear-image", 262_656),
        ("linear-text", 262_656),
        ("mlp", 1_050_624),
        ("residual", 525_312),
        ("residual-mlp", 4_199_424),
        ("attention", 1_051_648),
    ],
)
def test_sizes_are_those_of_the_paper_and_of_our_own(kind: str, parameters: int) -> None:
    matcher = new_matcher(kind, 512)
    assert sum(weight.numel() for weight in matcher.parameters()) == parameters
    assert matcher.settings == {
        "mlp": {"hidden": 512},
        "residual-mlp": {"hidden": 2048},
        "attention": {"heads": 64},
    }.get(kind, {})


def test_weights_are_drawn_as_torch_draws_them() -> None:
    torch.manual_seed(3)
    matcher = new_matcher("linear-text", WIDTH)
    torch.manual_seed(3)
    layer = nn.Linear(WIDTH, WIDTH)
    regions, texts = random(3, WIDTH), random(4, WIDTH, seed=1)
    expected = F.cosine_similarity(regions[:, None], layer(F.normalize(texts, dim=1))[None], dim=2).sigmoid()
    torch.testing.assert_close(matcher(regions, texts), expected)
    assert new_matcher("attention", 24).settings == {"heads": math.gcd(64, 24)}


def test_raw_embeddings_are_told_from_unit_ones() -> None:
    matcher, regions, texts = drawn("linear", "raw"), 3 * random(4, WIDTH), 3 * random(5, WIDTH, seed=1)
    own = [*range(5)]
    assert score(regions, Rows(texts, own), matcher).shape == (4, 5)
    with pytest.raises(InputError, match="regions have length one"):
        score(F.normalize(regions, dim=1), Rows(texts, own), matcher)
    with pytest.raises(InputError, match="texts have length one"):
        score(regions, Rows(F.normalize(texts, dim=1), own), matcher)


@pytest.mark.parametrize("kind", KINDS)
def test_other_widths_are_refused(kind: str) -> None:
    matcher = drawn(kind)
    with pytest.raises(InputError, match="dimensions"):
        matcher(random(2, WIDTH), random(3, WIDTH + 1))
    with pytest.raises(InputError, match="dimensions"):
        matcher.of_own(random(2, WIDTH + 1), random(2, 3, WIDTH))


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        ("linaer", {}, "Did you mean 'linear'"),
        ("linear", {"dim": None}, "needs the width"),
        ("linear", {"hidden": 3}, "'residual-mlp' alone"),
        ("mlp", {"heads": 3}, "'attention' alone"),
        ("mlp", {"hidden": 0}, "1 or more"),
        ("attention", {"heads": 5}, "5 heads"),
    ],
)
def test_wrong_settings_are_refused(kind: str, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        new_matcher(kind, **{"dim": WIDTH, **wrong})


def test_weights_of_something_else_are_no_matcher() -> None:
    layer = {"linear_layers.0.0.weight": random(4, 4), "linear_layers.0.0.bias": random(4)}
    assert from_official(layer, "it").kind == "linear-image"
    for wrong, message in (
        ({"visual.proj": random(4, 4)}, "no matcher: it holds visual.proj"),
        ({**layer, "linear_layers.0.0.weight": random(4)}, "matrix is wanted"),
        ({**layer, "linear_layers.0.0.weight": random(5, 4)}, r"not \(4, 4\)"),
        ({**layer, "more": random(4)}, "more is unknown"),
        ({**layer, "linear_layers.0.1.weight": random(4, 4)}, "no matcher"),
        ({"linear_layers.0.0.bias": random(4)}, "no matcher"),
    ):
        with pytest.raises(ModelError, match=message):
            from_official(wrong, "it")


def test_the_fingerprint_knows_weights_and_settings() -> None:
    matcher = drawn("linear")
    before = matcher.fingerprint
    assert before == drawn("linear").fingerprint
    matcher.scale = 10.0
    assert matcher.fingerprint != before
    assert drawn("linear", "raw").fingerprint != before
    with torch.no_grad():
        next(matcher.parameters()).add_(1)
    assert len({before, matcher.fingerprint}) == 2
