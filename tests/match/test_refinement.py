from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from closeup.errors import InputError
from closeup.match.refinement import ABSENT, denoise, smooth
from goldens import Golden, assert_close, cases


@pytest.mark.parametrize("golden", cases("maskclip_dense"))
def test_the_official_refinements(golden: Golden) -> None:
    for name in ("native", "wide"):
        for image, scores in enumerate(golden[f"out/{name}/score"]):
            keys = golden[f"out/{name}/k"][image].T.reshape(-1, *scores.shape[1:])
            cleaned = denoise(scores, 100, 0.5)
            assert_close(cleaned, golden[f"out/{name}/pd"][image])
            for which, given, threshold in (("ks", scores, 1.0), ("ks_half", scores, 0.5), ("kspd", cleaned, 1.0)):
                shares = (100 * given).softmax(dim=0)
                assert_close(smooth(shares, keys, threshold, over="positions"), golden[f"out/{name}/{which}"][image])


def made() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shares = (4 * torch.randn(5, 3, 4, generator=generator)).softmax(dim=0)
    return shares, torch.randn(7, 3, 4, generator=generator)


@pytest.mark.parametrize("threshold", [0.6, 1.0])
def test_cells_are_smoothed_as_a_loop_smooths_them(threshold: float) -> None:
    shares, keys = made()
    found = smooth(shares, keys, threshold)
    for row in range(3):
        for col in range(4):
            expected = shares[:, row, col]
            if float(expected.max()) < threshold:
                expected = sum(
                    F.cosine_similarity(keys[:, row, col], keys[:, y, x], dim=0) * shares[:, y, x]
                    for y in range(3)
                    for x in range(4)
                )  # type: ignore[assignment]
            torch.testing.assert_close(found[:, row, col], expected)


def test_sure_cells_stay_and_equal_keys_share() -> None:
    shares, keys = made()
    assert torch.equal(smooth(shares, keys, 0.0), shares)
    same = keys[:, :1, :1].expand(-1, 3, 4)
    total = shares.flatten(1).sum(dim=1)
    torch.testing.assert_close(smooth(shares, same, 1.0), total[:, None, None].expand(-1, 3, 4))


def test_a_word_that_is_nowhere_likely_is_dropped_and_the_last_ones_never() -> None:
    scores = torch.tensor([[[0.30, 0.10]], [[0.10, 0.30]], [[0.20, 0.20]]])
    cleaned = denoise(scores, 100)
    assert torch.equal(cleaned[:2], scores[:2])
    assert cleaned[2].tolist() == [[ABSENT, ABSENT]]
    assert torch.equal(denoise(scores, 0.1), scores)


def test_an_unknown_way_is_said() -> None:
    with pytest.raises(InputError, match="'channels'"):
        smooth(*made(), over="channels")
