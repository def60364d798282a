from __future__ import annotations

import pytest

from closeup.errors import InputError
from closeup.heads.closed_words import places_among
from closeup.text import Vocabulary

KNOWN = ("sky", "Sign_Symbol", "car", "pedestrian", "bicyclist")


def test_any_order_any_case_any_subset() -> None:
    assert places_among(Vocabulary(["CAR", "sign symbol.", "sky"]), KNOWN, "h") == ([2, 1, 0], [0, 1, 2])
    assert places_among(Vocabulary(KNOWN), KNOWN, "h") == ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])


def test_a_name_that_is_not_known_stands_for_all_of_its_synonyms_that_are() -> None:
    words = Vocabulary(["person", "car"], synonyms={"person": ["bicyclist", "girl", "pedestrian"]})
    assert places_among(words, KNOWN, "h") == ([4, 3, 2], [0, 0, 1])


def test_a_name_that_is_known_is_that_word_alone() -> None:
    words = Vocabulary(["pedestrian", "bicyclist"], synonyms={"pedestrian": ["bicyclist"]})
    assert places_among(words, KNOWN, "h") == ([3, 4], [0, 1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (Vocabulary(["sky", "carr"]), r"The word 'carr' is not among the 5 that 'h' learned.*Did you mean 'car'"),
        (Vocabulary(["tram", "sky", "bus"]), r"The words 'tram', 'bus' are not among"),
        (Vocabulary(list("123456789")), r"'5' and 4 more are not among"),
        (Vocabulary(["car", "auto"], synonyms={"auto": ["Car"]}), r"'car' and 'auto' are both the word 'car' of 'h'"),
        (Vocabulary(["sign_symbol", "sign symbol"]), r"both read 'sign symbol'"),
    ],
)
def test_what_a_head_does_not_know_is_refused(words: Vocabulary, message: str) -> None:
    with pytest.raises(InputError, match=message):
        places_among(words, KNOWN, "h")
