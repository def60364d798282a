"""A mixture's score is the weighted sum of its parts' scores."""

from __future__ import annotations

import pytest
import torch

from closeup.errors import InputError
from closeup.match.matcher import Seen
from closeup.match.matchers import new_matcher
from closeup.match.mixed import MixedMatcher


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_scores_are_weighted_sums(share: float) -> None:
    torch.manual_seed(0)
    regions, texts = torch.randn(4, 16), torch.randn(5, 16)
    captions = torch.randn(4, 3, 16)
    coarse, fine = new_matcher("cosine"), new_matcher("mlp", 16)
    mixed = MixedMatcher(coarse, fine, share)
    for row in range(4):
        for column in range(5):
            one = regions[row : row + 1], texts[column : column + 1]
            wanted = (1 - share) * coarse(*one) + share * 4 * fine(*one)  # a sigmoid rises a quarter as fast
            torch.testing.assert_close(mixed(regions, texts)[row : row + 1, column : column + 1], wanted)
    own = mixed.of_own(regions, captions)
    for row in range(4):
        torch.testing.assert_close(own[row], mixed(regions[row : row + 1], captions[row])[0])


def test_each_share_is_a_matcher_of_its_own() -> None:
    cosine, fine = new_matcher("cosine"), new_matcher("linear", 8)
    assert MixedMatcher(cosine, fine, 0.2).fingerprint != MixedMatcher(cosine, fine, 0.3).fingerprint
    assert MixedMatcher(cosine, fine, 0.2).dim == 8


def test_errors() -> None:
    with pytest.raises(InputError, match=r"share is 1\.2"):
        MixedMatcher(new_matcher("cosine"), new_matcher("cosine"), 1.2)
    with pytest.raises(InputError, match="different embeddings"):
        MixedMatcher(new_matcher("linear", 8), new_matcher("linear", 9), 0.5)
    with pytest.raises(InputError, match="different embeddings"):
        MixedMatcher(new_matcher("cosine"), new_matcher("linear", 9, inputs="raw"), 0.5)
    looking = new_matcher("linear", 8, seen=Seen((1,), 4))
    for pair in ((looking, new_matcher("cosine")), (new_matcher("cosine"), looking), (looking, looking)):
        with pytest.raises(InputError, match="sees more than embeddings"):
            MixedMatcher(*pair, 0.5)
