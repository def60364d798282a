from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from open_clip import CLIP
from torch import Tensor

from closeup.errors import ConfigError, InputError, ModelError
from closeup.models.clip import Clip
from closeup.models.image_copy import image_copy
from closeup.models.text_tower import text_tower
from closeup.text.prompts import LearnedContexts, encode_prompts, with_room
from goldens import Golden, assert_close, cases
from tiny_clips import VISION, as_clip, vit_clip
from tiny_text_towers import TEXT_TOWERS
from tiny_towers import randomise

NAMES = ["dog", "traffic light", "very small old stone house"]
TEMPLATE = "a photo of a"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Clip]:
    return {kind: make(tmp_path_factory.mktemp(kind)) for kind, make in TEXT_TOWERS.items()}


@pytest.fixture(params=TEXT_TOWERS)
def clip(request: pytest.FixtureRequest, clips: dict[str, Clip]) -> Clip:
    return clips[request.param]


@pytest.fixture(scope="module")
def small(clips: dict[str, Clip]) -> Clip:
    return clips["built-in"]


def random_contexts(learned: LearnedContexts, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, learned.width, generator=torch.Generator().manual_seed(seed))


def written(clip: Clip, learned: LearnedContexts, words: str) -> Tensor:
    """Return the token embeddings of words, as contexts."""
    ids = clip.tokenizer([f"{words} dog", "dog"])
    start = int((ids[0] == ids[1]).long().cumprod(0).sum())
    count = len(words.split())
    return learned.tower.embed(ids[:1, start : start + count])


def test_written_contexts_give_the_text_embeddings_of_the_written_prompts(clip: Clip) -> None:
    learned = LearnedContexts(clip, NAMES, 2)
    found = learned(written(clip, learned, TEMPLATE))
    expected = clip.encode_text([f"{TEMPLATE} {name}" for name in NAMES], normalize=False)
    assert found.shape == (1, len(NAMES), clip.dim)
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "flag"), [("coca", "correct_cls_mask"), ("mobile", "use_pad_mask")])
def test_masks_of_the_padding_are_open_clips(clips: dict[str, Clip], kind: str, flag: str) -> None:
    clip = deepcopy(clips[kind])
    assert getattr(clip.model.text, flag) is False
    setattr(clip.model.text, flag, True)
    learned = LearnedContexts(clip, NAMES, 2)
    found = learned(written(clip, learned, TEMPLATE))[0]
    expected = clip.encode_text([f"{TEMPLATE} {name}" for name in NAMES], normalize=False)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    usual = LearnedContexts(clips[kind], NAMES, 2)
    assert (found - usual(written(clips[kind], usual, TEMPLATE))[0]).abs().max() > 1e-3


def test_no_contexts_give_the_embeddings_of_the_bare_names(clip: Clip) -> None:
    learned = LearnedContexts(clip, NAMES, 2)
    expected = clip.encode_text(NAMES, normalize=False)
    torch.testing.assert_close(learned(random_contexts(learned, 1, 0))[0], expected, rtol=0, atol=1e-5)


def test_what_is_cut_off_changes_nothing(clip: Clip) -> None:
    learned = LearnedContexts(clip, NAMES, 4)
    ids = clip.tokenizer(NAMES)
    short = learned.tokens(4)
    whole = with_room(clip.tokenizer(NAMES, context_length=ids.shape[1] - 4), 4, learned.start)
    assert whole.shape == ids.shape
    contexts = random_contexts(learned, 2, 4)
    expected = encode_prompts(learned.tower, whole, contexts, learned.start)
    torch.testing.assert_close(encode_prompts(learned.tower, short, contexts, learned.start), expected)


@pytest.mark.parametrize(
    ("kind", "length"),
    [
        *[("built-in", 11), ("custom", 11), ("worldwide", 11), ("roberta", 11), ("nllb", 11), ("mt5", 10)],
        *[("siglip", 16), ("clipa", 16), ("mobile", 20), ("coca", 20)],
    ],
)
def test_only_towers_that_do_not_see_the_padding_are_spared_it(clips: dict[str, Clip], kind: str, length: int) -> None:
    assert LearnedContexts(clips[kind], NAMES, 4).tokens(4).shape == (3, length)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    added=st.lists(st.sampled_from(["cat", "old tree", "big red boat of an old stone house"]), unique=True, min_size=1)
)
def test_adding_words_changes_no_other_word(clip: Clip, added: list[str]) -> None:
    alone = LearnedContexts(clip, NAMES, 2)
    contexts = random_contexts(alone, 2, 2)
    more = LearnedContexts(clip, [*added, *NAMES], 2)(contexts)
    torch.testing.assert_close(more[:, len(added) :], alone(contexts), rtol=0, atol=2e-6)


def test_a_batch_is_its_entries_one_by_one(clip: Clip) -> None:
    learned = LearnedContexts(clip, NAMES, 2)
    contexts = random_contexts(learned, 3, 5)
    one_by_one = torch.cat([learned(each[None]) for each in contexts])
    torch.testing.assert_close(learned(contexts), one_by_one, rtol=0, atol=2e-6)
    assert (learned(contexts)[0] - learned(contexts)[1]).abs().max() > 1e-3


def test_contexts_learn_and_the_tower_does_not(clip: Clip) -> None:
    before = {name: weight.clone() for name, weight in clip.model.state_dict().items()}
    learned = LearnedContexts(clip, NAMES, 2)
    assert list(dict(learned.named_parameters())) == list(learned.state_dict()) == ["contexts"]
    assert [*learned.children()] == []
    optimizer = torch.optim.SGD(learned.parameters(), lr=0.1)
    target = clip.encode_text(NAMES)
    losses = []
    for _ in range(3):
        loss = (torch.nn.functional.normalize(learned()[0], dim=1) - target).square().sum()
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
    assert losses[2] < losses[0]
    assert learned.contexts.grad is not None
    assert all(weight.grad is None and weight.requires_grad for weight in clip.model.parameters())
    assert all(weight.grad is None and not weight.requires_grad for weight in learned.tower.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in clip.model.state_dict().items())


def test_the_tower_shares_the_memory_of_the_clips_weights(clip: Clip) -> None:
    places = {weight.data_ptr() for weight in clip.model.parameters()}
    assert {weight.data_ptr() for weight in LearnedContexts(clip, NAMES).tower.parameters()} <= places


def test_gradients_are_those_of_finite_differences(small: Clip) -> None:
    learned = LearnedContexts(small, ["dog"], 2).double()
    contexts = learned.contexts.detach()
    weights = torch.randn(small.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # The module's result is in float32, too coarse for differences.
    tokens = learned.tokens(2)

    def value(given: Tensor) -> Tensor:
        embedded = learned.tower.embed(tokens)
        whole = torch.cat([embedded[:, :1], given, embedded[:, 3:]], dim=1)
        return learned.tower.encode(whole, tokens)[0] @ weights

    assert torch.autograd.gradcheck(value, contexts.clone().requires_grad_())
    leaf = contexts.clone().requires_grad_()
    value(leaf).backward()
    (learned()[0, 0].double() @ weights).backward()
    torch.testing.assert_close(learned.contexts.grad, leaf.grad, rtol=1e-5, atol=1e-6)


def test_dropout_never_acts(clips: dict[str, Clip]) -> None:
    clip = clips["roberta"]
    learned = LearnedContexts(clip, NAMES, 2).train()
    quiet = learned()
    clip.model.train()
    try:
        assert torch.equal(learned(), quiet)
        assert not LearnedContexts(clip, NAMES, 2).tower.training
        assert clip.model.text.training
    finally:
        clip.model.eval()


@pytest.mark.parametrize("name", ["fork, spoon", "crème brûlée", "寿司", "Ёлка", "🦊", "T-shirt's", '"quoted"', "C++"])
def test_names_in_every_script(small: Clip, name: str) -> None:
    learned = LearnedContexts(small, ["dog", name], 2)
    found = learned(written(small, learned, TEMPLATE))[0, 1]
    expected = small.encode_text([f"{TEMPLATE} {name}"], normalize=False)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("words", [4, 20, 70, 71, 72, 200])
def test_long_names_are_cut_as_the_tokenizer_cuts_prompts(small: Clip, words: int) -> None:
    name = " ".join(["dog", "cat"] * words)[: 4 * words - 1]
    learned = LearnedContexts(small, ["tree", name], 4)
    found = learned(written(small, learned, TEMPLATE))[0]
    expected = small.encode_text([f"{TEMPLATE} tree", f"{TEMPLATE} {name}"], normalize=False)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert learned.tokens(4).shape[1] == min(words + 6, 77)


def test_names_are_cleaned_by_the_rule(small: Clip) -> None:
    torch.manual_seed(0)
    first = LearnedContexts(small, ["aerosol_can"], 2)
    assert torch.equal(first.tokens(2), LearnedContexts(small, ["aerosol can"], 2).tokens(2))
    assert not torch.equal(
        LearnedContexts(small, ["aerosol_can"], 2, clean="verbatim").tokens(2)[0, 3:6], first.tokens(2)[0, 3:6]
    )
    assert first.names == ("aerosol_can",)


def test_contexts_start_as_a_cut_normal(small: Clip) -> None:
    torch.manual_seed(0)
    contexts = LearnedContexts(small, NAMES, 60).contexts.detach()
    assert contexts.shape == (1, 60, 16)
    assert contexts.abs().max() <= 2
    assert contexts.std() == pytest.approx(0.88, abs=0.04)
    narrow = LearnedContexts(small, NAMES, 60, std=0.02).contexts.detach()
    assert 0.03 < narrow.abs().max() <= 0.04


def test_the_same_seed_gives_the_same_contexts_and_a_state_restores_them(small: Clip) -> None:
    torch.manual_seed(5)
    first = LearnedContexts(small, NAMES)
    torch.manual_seed(5)
    assert torch.equal(LearnedContexts(small, NAMES).contexts, first.contexts)
    other = LearnedContexts(small, NAMES)
    other.load_state_dict(first.state_dict())
    assert torch.equal(other(), first())
    assert torch.equal(deepcopy(first)(), first())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_little_and_float32_comes_out(clip: Clip, dtype: torch.dtype) -> None:
    learned = LearnedContexts(clip, NAMES, 2, std=0.3)
    exact = learned()
    with torch.autocast("cpu", dtype):
        found = learned()
    found.sum().backward()
    assert found.dtype == torch.float32
    assert learned.contexts.grad is not None
    assert learned.contexts.grad.isfinite().all()
    assert torch.cosine_similarity(found, exact, dim=2).min() > 0.99


def test_the_tower_follows_the_module_and_the_clip_stays(clip: Clip) -> None:
    learned = LearnedContexts(clip, NAMES, 2)
    single = learned().detach()
    learned.double()
    assert {weight.dtype for weight in learned.tower.parameters()} == {torch.float64}
    assert {weight.dtype for weight in clip.model.parameters()} == {torch.float32}
    torch.testing.assert_close(learned(), single, rtol=0, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", TEXT_TOWERS)
def test_on_another_device(kind: str, tmp_path: Path) -> None:
    clip = TEXT_TOWERS[kind](tmp_path)
    learned = LearnedContexts(clip, NAMES, 2)
    here = learned().detach()
    moved = deepcopy(learned).to("cuda")
    torch.testing.assert_close(moved().cpu(), here, rtol=0, atol=1e-4)
    assert clip.device.type == "cpu"
    made = LearnedContexts(clip.to("cuda"), NAMES, 2)
    assert made.contexts.device.type == made().device.type == "cuda"
    made.load_state_dict(learned.state_dict())
    with torch.autocast("cuda", torch.bfloat16):
        found = made()
    found.sum().backward()
    assert made.contexts.grad is not None
    assert torch.cosine_similarity(found.cpu(), here, dim=2).min() > 0.99


def test_under_bf16_weights(clips: dict[str, Clip]) -> None:
    clip = deepcopy(clips["built-in"])
    clip.model.bfloat16()
    found = LearnedContexts(clip, NAMES, 2)()
    assert found.dtype == torch.float32
    assert found.isfinite().all()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "at least one"),
        (["dog", " "], "Name 1 is empty"),
        (["dog", "Dog"], "the same"),
        (["a_b", "a b"], "both read"),
        (["..."], "leaves nothing"),
    ],
)
def test_names_that_cannot_be_used(small: Clip, names: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        LearnedContexts(small, names)


def test_a_name_that_is_nothing_to_the_tokenizer(small: Clip) -> None:
    with pytest.raises(InputError, match="nothing to the tokenizer"):
        LearnedContexts(small, ["dog", "&#32;"], clean="verbatim")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"count": 0}, "0 learned contexts"),
        ({"count": 75}, "74 at most"),
        ({"std": 0.0}, "deviation"),
        ({"std": -1.0}, "-1"),
    ],
)
def test_settings_that_cannot_be_used(small: Clip, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LearnedContexts(small, NAMES, **options)


def test_as_many_contexts_as_there_is_room_for(clip: Clip) -> None:
    context = clip.tokenizer(["dog"]).shape[1]
    learned = LearnedContexts(clip, ["dog"], 2)
    most = context - learned.start - 2
    assert learned(random_contexts(learned, 1, most)).isfinite().all()
    with pytest.raises(ConfigError, match=f"{most} at most"):
        learned(random_contexts(learned, 1, most + 1))


def test_contexts_of_another_width(small: Clip) -> None:
    with pytest.raises(InputError, match="17 dimensions for a text tower of 16"):
        LearnedContexts(small, NAMES)(torch.zeros(1, 2, 17))


def test_a_clip_without_text_tower() -> None:
    with pytest.raises(ModelError, match="no text tower"):
        LearnedContexts(image_copy(vit_clip()), NAMES)


def official_clip(golden: Golden) -> Clip:
    sizes = golden.config["text_encoder"]
    text = {"context_length": sizes["context_length"], "vocab_size": sizes["vocab_size"]}
    text |= {"width": sizes["transformer_width"], "heads": sizes["transformer_heads"]}
    text |= {"layers": sizes["transformer_layers"]}
    model = randomise(CLIP(sizes["embed_dim"], dict(VISION), text, quick_gelu=True))
    missing, unexpected = model.load_state_dict(golden.weights("w/text_encoder."), strict=False)
    assert unexpected == []
    assert all(name.startswith("visual.") or name == "logit_scale" for name in missing)
    return as_clip(model)


@pytest.mark.parametrize("golden", cases("denseclip_text"))
def test_the_official_text_encoder_gives_the_same_embeddings(golden: Golden) -> None:
    tower = text_tower(official_clip(golden))
    tokens = with_room(golden["in/tokens"], golden["w/contexts"].shape[1], 1)
    found = encode_prompts(tower, tokens, golden["w/contexts"], 1)
    assert_close(found, golden["out/text_embeddings_before"])
    cut = tokens[:, : tower.used(tokens)]
    assert_close(encode_prompts(tower, cut, golden["w/contexts"], 1), golden["out/text_embeddings_before"])


@pytest.mark.parametrize("golden", cases("denseclip_text"))
def test_the_official_tokenizer_reads_names_alike(golden: Golden, small: Clip) -> None:
    learned = LearnedContexts(small, golden.meta["class_names_for_out/class_name_tokens"])
    theirs = golden["out/class_name_tokens"]
    ours = learned.tokens(0)
    assert torch.equal(ours, theirs[:, : ours.shape[1]])
    assert not theirs[:, ours.shape[1] :].any()
    assert torch.equal(learned.tokens(8)[:, 9:], ours[:, 1:])
