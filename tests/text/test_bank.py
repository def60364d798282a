from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import open_clip
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from closeup.errors import InputError
from closeup.text.bank import TextBank, TextEncoder, build_bank
from closeup.text.means import MEANS
from closeup.text.templates import Templates, get_templates
from closeup.text.vocabulary import Vocabulary
from tiny_text import TinyText

WORDS = ["dog", "apple", "red frisbee", "grass", "sky"]
build: Callable[..., TextBank] = partial(build_bank, cache=False)
calm = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def encoded(clip: TinyText, texts: list[str]) -> Tensor:
    with torch.no_grad():
        rows: Tensor = clip.model.encode_text(clip.tokenizer(texts))
    return rows


def test_the_encoder_of_the_tests_is_a_text_encoder(clip: TinyText) -> None:
    assert isinstance(clip, TextEncoder)


def test_normalise_then_mean_is_open_clips_zero_shot_classifier(clip: TinyText) -> None:
    expected = open_clip.build_zero_shot_classifier(
        clip.model, clip.tokenizer, WORDS, open_clip.OPENAI_IMAGENET_TEMPLATES, num_classes_per_batch=None
    )
    bank = build(clip, Vocabulary(WORDS), templates="openai-80")
    torch.testing.assert_close(bank.embeddings, expected.T, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mean", list(MEANS))
def test_every_mean_is_what_its_name_says(clip: TinyText, mean: str) -> None:
    bank = build(clip, Vocabulary(WORDS), templates="vild-63", mean=mean)
    for row, word in zip(bank.embeddings, WORDS, strict=True):
        raw = encoded(clip, list(get_templates("vild-63").fill(word)))
        expected = {
            "normalise-then-mean": F.normalize((raw / raw.norm(dim=1, keepdim=True)).mean(0), dim=0),
            "mean-then-normalise": F.normalize(raw.mean(0), dim=0),
            "mean-of-raw": raw.mean(0),
        }[mean]
        torch.testing.assert_close(row, expected, rtol=0, atol=1e-6)


def test_the_means_differ(clip: TinyText) -> None:
    banks = [build(clip, Vocabulary(WORDS), templates="openai-7", mean=mean).embeddings for mean in MEANS]
    assert not torch.allclose(banks[0], banks[1], atol=1e-6)
    assert not torch.allclose(banks[1], banks[2], atol=1e-3)


def test_synonyms_are_rows_that_belong_to_their_name(clip: TinyText) -> None:
    vocabulary = Vocabulary(["screen", "sofa", "blind"], synonyms={"sofa": ["couch"], "blind": ["screen"]})
    bank = build(clip, vocabulary)
    assert bank.owner.tolist() == [0, 1, 1, 2, 2]
    assert len(bank) == 3
    assert bank.names == vocabulary.names
    assert torch.equal(bank.embeddings[0], bank.embeddings[4])
    assert [batch[0] for batch in clip.batches] == [f"a photo of a {w}." for w in ("screen", "sofa", "couch", "blind")]


def test_names_are_cleaned_before_they_are_embedded(clip: TinyText) -> None:
    bank = build(clip, Vocabulary(["Aerosol_can", "Monitor/TV"]), templates="vild-63")
    assert clip.batches[0][0] == "There is an aerosol can in the scene."
    assert clip.batches[1][0] == "There is a monitor or tv in the scene."
    assert bank.names == ("Aerosol_can", "Monitor/TV")


def test_synonyms_that_are_cleaned_to_one_are_embedded_once(clip: TinyText) -> None:
    bank = build(clip, Vocabulary(["aerosol_can"], synonyms={"aerosol_can": ["aerosol can", "spray_can"]}))
    assert bank.owner.tolist() == [0, 0]


def test_two_names_that_are_cleaned_to_one_are_refused(clip: TinyText) -> None:
    vocabulary = Vocabulary(["traffic light", "traffic_light"])
    with pytest.raises(InputError, match="'traffic light' and 'traffic_light' both read"):
        build(clip, vocabulary)
    assert len(build(clip, vocabulary, clean="verbatim")) == 2


@calm
@given(st.lists(st.sampled_from(["cat", "boat", "an old tree", "x", "sea"]), unique=True, min_size=1))
def test_adding_words_changes_no_other_row_by_a_single_bit(clip: TinyText, added: list[str]) -> None:
    alone = build(clip, Vocabulary(WORDS), templates="openai-7").embeddings
    for names in (WORDS + added, added + WORDS):
        bank = build(clip, Vocabulary(names), templates="openai-7")
        rows = bank.embeddings[[names.index(word) for word in WORDS]]
        assert torch.equal(rows, alone)


@calm
@given(st.permutations(range(len(WORDS))))
def test_the_order_of_words_is_only_an_order(clip: TinyText, order: list[int]) -> None:
    bank = build(clip, Vocabulary([WORDS[i] for i in order]))
    assert torch.equal(bank.embeddings, build(clip, Vocabulary(WORDS)).embeddings[order])


def test_rows_are_unit_length_and_need_no_gradient(clip: TinyText) -> None:
    bank = build(clip, Vocabulary(WORDS), templates="vild-14")
    torch.testing.assert_close(bank.embeddings.norm(dim=1), torch.ones(len(WORDS)))
    assert not bank.embeddings.requires_grad
    assert (bank.templates, bank.mean, bank.fingerprint) == ("vild-14", "normalise-then-mean", clip.text_fingerprint)


def test_a_bank_made_in_inference_mode_can_enter_a_loss(clip: TinyText) -> None:
    with torch.inference_mode():
        bank = build(clip, Vocabulary(WORDS))
    assert not bank.embeddings.requires_grad
    regions = torch.ones(1, bank.embeddings.shape[1], requires_grad=True)
    (regions @ bank.embeddings.T).sum().backward()
    assert regions.grad is not None


def test_a_bank_moves_to_another_type(clip: TinyText) -> None:
    moved = build(clip, Vocabulary(WORDS)).to("cpu", torch.bfloat16)
    assert moved.embeddings.dtype == torch.bfloat16
    assert moved.owner.dtype == torch.int64
    assert moved.names == tuple(WORDS)


def test_own_templates(clip: TinyText) -> None:
    build(clip, Vocabulary(["dog"]), templates=Templates("aerial", "", ("a {} from above",)))
    assert clip.batches == [["a dog from above"]]


@pytest.mark.parametrize(
    ("wrong", "said"), [({"mean": "mean"}, "mean"), ({"templates": "simpel"}, "'simple'"), ({"clean": "x"}, "rule")]
)
def test_unknown_choices_are_named(clip: TinyText, wrong: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        build(clip, Vocabulary(WORDS), **wrong)


def test_the_second_bank_comes_from_disk(clip: TinyText, tmp_path: Path) -> None:
    first = build_bank(clip, Vocabulary(WORDS), cache_dir=tmp_path)
    clip.batches.clear()
    second = build_bank(clip, Vocabulary(WORDS), cache_dir=tmp_path)
    assert clip.batches == []
    assert torch.equal(first.embeddings, second.embeddings)
    assert torch.equal(first.owner, second.owner)
    assert len(list(tmp_path.iterdir())) == 1


def test_marks_and_grouping_share_one_file(clip: TinyText, tmp_path: Path) -> None:
    build_bank(clip, Vocabulary(["sofa", "couch"]), cache_dir=tmp_path)
    clip.batches.clear()
    bank = build_bank(clip, Vocabulary(["sofa"], synonyms={"sofa": ["couch"]}, novel=["sofa"]), cache_dir=tmp_path)
    assert clip.batches == []
    assert bank.owner.tolist() == [0, 0]


def test_whatever_changes_the_rows_changes_the_file(clip: TinyText, tmp_path: Path) -> None:
    vocabulary = Vocabulary(["A_dog", "cat"])
    build_bank(clip, vocabulary, cache_dir=tmp_path)
    build_bank(TinyText(seed=1), vocabulary, cache_dir=tmp_path)
    build_bank(clip, Vocabulary(["cat", "A_dog"]), cache_dir=tmp_path)
    build_bank(clip, vocabulary, cache_dir=tmp_path, templates="vild-14")
    build_bank(clip, vocabulary, cache_dir=tmp_path, mean="mean-of-raw")
    build_bank(clip, vocabulary, cache_dir=tmp_path, clean="verbatim")
    assert len(list(tmp_path.iterdir())) == 6


def test_a_damaged_file_is_made_anew(clip: TinyText, tmp_path: Path) -> None:
    first = build_bank(clip, Vocabulary(WORDS), cache_dir=tmp_path)
    path = next(tmp_path.iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert torch.equal(build_bank(clip, Vocabulary(WORDS), cache_dir=tmp_path).embeddings, first.embeddings)
    assert path.read_bytes() == whole


def test_the_cache_follows_the_environment(clip: TinyText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOSEUP_CACHE", str(tmp_path))
    build_bank(clip, Vocabulary(WORDS))
    assert len(list((tmp_path / "text").glob("*.safetensors"))) == 1
    build_bank(clip, Vocabulary(["cat"]), cache=False)
    assert len(list((tmp_path / "text").iterdir())) == 1
