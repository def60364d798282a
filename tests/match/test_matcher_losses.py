"""The losses against the official ones, alone and through matchers, with their gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from closeup.errors import InputError
from closeup.match.losses import own_negatives_loss, triplet_loss
from closeup.match.official_matchers import from_official
from goldens import Golden, assert_close, cases

GOLDENS = pytest.mark.parametrize("golden", cases("fgclip_losses"))


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(loss, of)[0]


@GOLDENS
@pytest.mark.parametrize("kind", ["sum", "max"])
def test_losses_of_scores(golden: Golden, kind: str) -> None:
    hardest = kind == "max"
    scores = golden["in/scores"].requires_grad_()
    loss = triplet_loss(scores, margin=golden.config["margin_triplet"], hardest=hardest)
    assert_close(loss.detach(), golden[f"out/scores_triplet_{kind}_loss"])
    assert_close(gradient(loss, scores), golden[f"out/scores_triplet_{kind}_grad"])
    own = golden["in/scores_fgovd"].requires_grad_()
    loss = own_negatives_loss(own, margin=golden.config["margin_fgovd"], hardest=hardest)
    assert_close(loss.detach(), golden[f"out/scores_fgovd_{kind}_loss"])
    assert_close(gradient(loss, own), golden[f"out/scores_fgovd_{kind}_grad"])


@GOLDENS
@pytest.mark.parametrize("name", ["linear_both", "mha"])
@pytest.mark.parametrize("case", ["triplet", "fgovd_repo", "fgovd_corrected"])
def test_losses_through_matchers(golden: Golden, name: str, case: str) -> None:
    stored = f"out/model_{name}/{case}/"
    if stored + "loss" not in golden:
        stored = f"out/model_{name}/fgovd_repo/"  # where both are one
    matcher = from_official(golden.weights(f"w/{name}/"), name, heads=golden.config["heads"] if name == "mha" else None)
    regions = golden["in/v"].requires_grad_()
    texts = golden["in/t" if case == "triplet" else "in/t_fgovd"].requires_grad_()
    if case == "triplet":
        scores = matcher(regions, texts)
        loss = triplet_loss(scores, margin=golden.config["margin_triplet"])
    else:
        scores = matcher.of_own(regions, texts, "features" if case == "fgovd_corrected" else "captions")
        loss = own_negatives_loss(scores, margin=golden.config["margin_fgovd"])
    assert_close(scores.detach(), golden[stored + "scores"])
    assert_close(loss.detach(), golden[stored + "loss"])
    loss.backward()
    for met, key in ((regions, "grad_v"), (texts, "grad_t")):
        assert met.grad is not None
        assert_close(met.grad, golden[stored + key])
    # Gradients are translated by the same mapping of keys as weights.
    found = {key: weight.grad for key, weight in matcher.named_parameters()}
    wanted = from_official(golden.weights(stored + "gradw/"), name, heads=int(matcher.settings.get("heads", 0)) or None)
    for key, theirs in wanted.state_dict().items():
        ours = found[key]
        assert_close(torch.zeros_like(theirs) if ours is None else ours, theirs)


def test_written_out() -> None:
    scores = torch.tensor([[0.9, 0.2, 0.3], [0.1, 0.8, 0.75], [0.5, 0.4, 0.6]])
    assert float(triplet_loss(scores)) == pytest.approx(0.6)
    assert float(triplet_loss(scores, hardest=True)) == pytest.approx(0.6)
    assert float(own_negatives_loss(torch.tensor([[0.6, 0.58, 0.2], [0.5, 0.55, 0.44]]))) == pytest.approx(0.13)
    total = 0.0
    for i in range(3):
        for j in range(3):
            if i != j:
                total += max(0, 0.5 + float(scores[i, j] - scores[i, i]))
                total += max(0, 0.5 + float(scores[i, j] - scores[j, j]))
    assert float(triplet_loss(scores, margin=0.5)) == pytest.approx(total)


def test_pairs_apart_cost_nothing_and_wrong_tables_are_refused() -> None:
    assert float(triplet_loss(torch.eye(4))) == 0
    assert float(triplet_loss(torch.eye(1), hardest=True)) == 0
    assert float(triplet_loss(torch.zeros(0, 0), hardest=True)) == 0
    with pytest.raises(InputError, match="3 pictures and 4 texts"):
        triplet_loss(torch.zeros(3, 4))
    with pytest.raises(InputError, match="1 captions"):
        own_negatives_loss(torch.zeros(3, 1))
