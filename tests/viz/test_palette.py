from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from closeup.viz.palette import SIZE, Colour, colours, ink, name_colours


def test_different_names_get_different_colours() -> None:
    assert len(set(name_colours([f"word {i}" for i in range(SIZE)]))) == SIZE
    assert name_colours([]) == []


@given(st.lists(st.text(), max_size=40))
@settings(max_examples=40, deadline=None)
def test_equal_names_share_a_colour_and_the_first_name_always_has_the_same(names: list[str]) -> None:
    found = name_colours(names)
    assert len(set(found)) == len(set(names))
    assert len(set(zip(names, found, strict=True))) == len(set(names))
    assert name_colours(names[:1]) == found[:1]


def test_a_vocabulary_longer_than_the_table_starts_again() -> None:
    found = name_colours([f"word {i}" for i in range(2 * SIZE)])
    assert all(found.count(colour) == 2 for colour in set(found))


def test_more_words_do_not_change_the_colours_of_those_before() -> None:
    names = [f"word {i}" for i in range(60)]
    assert name_colours(names)[:20] == name_colours(names[:20])


def test_the_first_colours_are_far_apart_and_none_is_grey() -> None:
    table = torch.tensor(colours(), dtype=torch.float32)
    first = table[:24]
    assert float((torch.cdist(first, first) + 1e3 * torch.eye(24)).min()) > 25
    assert float((table.amax(dim=1) - table.amin(dim=1)).min()) > 30


def luminance(colour: Colour) -> float:
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_on_every_colour_has_the_contrast_that_wcag_asks_for() -> None:
    for colour in colours():
        low, high = sorted((luminance(colour), luminance(ink(colour))))
        assert (high + 0.05) / (low + 0.05) >= 4.5
