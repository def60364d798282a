from __future__ import annotations

import pytest

from closeup.errors import InputError
from closeup.text.names import clean_name


@pytest.mark.parametrize(
    ("rule", "name", "cleaned"),
    [
        ("vild", "Wall-other-merged", "wall-other-merged"),
        ("vild", "aerosol_can", "aerosol can"),
        ("vild", "Monitor/TV.", "monitor or tv"),
        ("vild", "bow_(weapon)", "bow (weapon)"),
        ("verbatim", "building, edifice", "building, edifice"),
        ("verbatim", "  TV ", "TV"),
        ("regionclip", "bow_(decorative_ribbons)", "bow decorative ribbons"),
        ("regionclip", "salt, pepper+vinegar", "salt pepper vinegar"),
    ],
)
def test_a_rule_cleans_a_name(rule: str, name: str, cleaned: str) -> None:
    assert clean_name(name, rule) == cleaned


def test_an_unknown_rule_is_suggested() -> None:
    with pytest.raises(InputError, match="'vild'"):
        clean_name("dog", "vlid")


def test_a_name_without_letters_is_refused() -> None:
    with pytest.raises(InputError, match=r"'\.\.\.'"):
        clean_name("...", "vild")
