from __future__ import annotations

import pytest
import torch

from closeup.errors import InputError
from closeup.models.clip import Clip
from closeup.predict.words import as_bank, joined
from closeup.text import Vocabulary, get_templates
from tiny_clips import vit_clip


def test_names_a_vocabulary_and_a_bank_are_the_same_words(clip: Clip) -> None:
    listed = as_bank(clip, ["cat", "dog"])
    vocabulary = as_bank(clip, Vocabulary(["cat", "dog"]))
    assert torch.equal(listed.embeddings, vocabulary.embeddings)
    assert as_bank(clip, listed) is listed
    assert as_bank(clip, listed, "simple") is listed
    assert as_bank(clip, listed, get_templates("simple")) is listed


def test_a_bank_of_other_templates_or_another_model_is_refused(clip: Clip) -> None:
    bank = as_bank(clip, ["cat"], "simple")
    with pytest.raises(InputError, match="templates 'simple', not 'vild-14'"):
        as_bank(clip, bank, "vild-14")
    with pytest.raises(InputError, match="built with this model"):
        as_bank(vit_clip(seed=1), bank)


def test_a_word_joins_a_vocabulary_and_keeps_its_synonyms_and_marks() -> None:
    vocabulary = Vocabulary(["cat", "dog"], synonyms={"cat": ["kitten"]}, novel=["dog"])
    more = joined(vocabulary, "sky")
    assert isinstance(more, Vocabulary)
    assert more.names == ("cat", "dog", "sky")
    assert more.synonyms == (("cat", "kitten"), ("dog",), ("sky",))
    assert more.novel == (False, True, False)
    assert joined(vocabulary, "Dog") is vocabulary


def test_a_word_cannot_join_a_bank(clip: Clip) -> None:
    bank = as_bank(clip, ["cat"])
    assert joined(bank, "cat") is bank
    with pytest.raises(InputError, match="'sky'"):
        joined(bank, "sky")
