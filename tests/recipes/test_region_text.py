"""RegionCLIP's losses: the official code's on its goldens, and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from closeup.recipes.contrastive import contrastive_loss
from closeup.recipes.region_text import (
    concept_contrast,
    concept_distillation,
    federated_nouns,
    noun_loss,
    pseudo_labels,
)
from goldens import Golden, assert_close, cases


@pytest.mark.parametrize("golden", cases("regionclip_losses"))
@pytest.mark.parametrize("case", ["", "all_flat"])
def test_losses_and_gradients_are_the_official_ones(golden: Golden, case: str) -> None:
    given, found = (f"_{case}" if case else ""), (f"out/{case}/" if case else "out/")
    temperature, threshold = golden.config["temp"], golden.config["thres"]
    regions = golden[f"in/student_region_feats{given}"].requires_grad_()
    concepts = golden["in/concept_emb"]
    labelled = pseudo_labels(
        golden[f"in/teacher_region_feats{given}"],
        golden["in/teacher_concept_emb"],
        temperature=temperature,
        threshold=threshold,
    )
    assert labelled.rows.tolist() == golden[f"{found}pseudo_keep"].nonzero()[:, 0].tolist()
    assert_close(labelled.labels, golden[f"{found}pseudo_target_inds"])
    assert_close(labelled.probabilities, golden[f"{found}pseudo_concept_scores_kept"])
    kept, targets = regions[labelled.rows], concepts[labelled.labels]
    for name, loss in (
        ("contrastive", concept_contrast(kept, labelled.labels, targets, labelled.labels, temperature=temperature)),
        ("distill", concept_distillation(kept, concepts, labelled.probabilities, temperature=temperature)),
    ):
        kind = {"contrastive": "concept_contrastive", "distill": "region_distill"}[name]
        assert_close(loss.detach(), golden[f"{found}loss_{kind}"])
        (gradient,) = torch.autograd.grad(loss, regions, retain_graph=True)
        assert_close(gradient, golden[f"{found}grad_{name}_student_region_feats"])


@pytest.mark.parametrize("golden", cases("regionclip_losses"))
def test_whole_images_and_captions_are_contrasted_as_officially(golden: Golden) -> None:
    images, texts = golden["in/global_feats"].requires_grad_(), golden["in/text_embs"].requires_grad_()
    scale = torch.tensor(1 / golden.config["temp"])
    loss = contrastive_loss(normalize(images, dim=1), normalize(texts, dim=1), scale)
    assert_close(loss.detach(), golden["out/loss_img_txt_level"])
    loss.backward()
    assert images.grad is not None
    assert texts.grad is not None
    assert_close(images.grad, golden["out/grad_img_txt_global_feats"])
    assert_close(texts.grad, golden["out/grad_img_txt_text_embs"])


@pytest.mark.parametrize("golden", cases("regionclip_losses"))
def test_a_student_that_is_far_off_has_a_large_loss_and_not_an_infinite_one(golden: Golden) -> None:
    """The official code gives infinity here; in double precision it gives 100."""
    regions, concepts = golden["in/edge_student_region_feats"], golden["in/edge_concept_emb"]
    labelled = pseudo_labels(golden["in/edge_teacher_region_feats"], concepts)
    assert concept_distillation(regions, concepts, labelled.probabilities).item() == pytest.approx(100, rel=1e-3)


@pytest.mark.parametrize("golden", cases("clipself_regionclip_loss"))
def test_noun_labels_are_learned_as_officially(golden: Golden) -> None:
    regions, nouns = golden["in/region_features"].requires_grad_(), golden["in/noun_embeddings"]
    boxes = golden["in/boxes"].flatten(0, 1)
    labels = boxes[boxes[:, 5] > 0][:, 4].long()
    columns = golden["in/fed_inds"].long()
    loss = noun_loss(regions, nouns, labels, golden["in/logit_scale"].exp(), columns)
    assert_close(loss.detach(), golden["out/loss_contrast"])
    loss.backward()
    assert regions.grad is not None
    assert_close(regions.grad, golden["out/grad_region_features"])
    assert torch.equal(columns[: len(labels.unique())], federated_nouns(labels, len(nouns))[: len(labels.unique())])


def vectors(count: int, seed: int) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))


def test_contrast_between_different_concepts_is_cross_entropy() -> None:
    regions, concepts, labels = vectors(5, 0), vectors(5, 1), torch.tensor([3, 1, 4, 0, 9])
    logits = normalize(regions, dim=1) @ normalize(concepts, dim=1).T / 0.5
    ours = concept_contrast(regions, labels, concepts, labels, temperature=0.5)
    torch.testing.assert_close(ours, cross_entropy(logits, torch.arange(5)))


def test_regions_of_other_devices_are_more_concepts_to_be_told_from() -> None:
    regions, labels = vectors(3, 0), torch.tensor([0, 1, 0])
    pool = vectors(4, 1)
    alone = concept_contrast(regions, labels, pool[labels], labels, temperature=0.5)
    everywhere = torch.tensor([0, 1, 0, 2, 3])
    gathered = concept_contrast(regions, labels, pool[everywhere], everywhere, temperature=0.5)
    assert gathered > alone
    order = torch.tensor([4, 2, 0, 3, 1])
    torch.testing.assert_close(
        concept_contrast(regions, labels, pool[everywhere][order], everywhere[order], temperature=0.5), gathered
    )


def test_a_student_that_agrees_has_nothing_to_learn() -> None:
    regions, concepts = vectors(6, 0), vectors(7, 1)
    labelled = pseudo_labels(regions, concepts, threshold=0.0)
    assert concept_distillation(3 * regions, concepts, labelled.probabilities).item() == pytest.approx(0, abs=1e-5)


def test_the_threshold_has_to_be_exceeded_and_keeps_all_where_none_exceeds_it() -> None:
    concepts = torch.eye(4)
    sure, unsure = concepts[2], torch.full((4,), 0.5)
    labelled = pseudo_labels(torch.stack([unsure, sure, unsure]), concepts, threshold=0.25)
    assert (labelled.rows.tolist(), labelled.labels.tolist()) == ([1], [2])
    assert pseudo_labels(torch.stack([unsure, unsure]), concepts, threshold=0.25).rows.tolist() == [0, 1]


def test_no_region_is_no_loss_and_no_nan() -> None:
    none, labels, concepts = torch.zeros(0, 8, requires_grad=True), torch.zeros(0, dtype=torch.long), vectors(4, 1)
    labelled = pseudo_labels(none, concepts)
    assert len(labelled.rows) == 0
    for loss in (
        concept_contrast(none, labels, concepts[labels], labels),
        concept_distillation(none, concepts, labelled.probabilities),
        noun_loss(none, concepts, labels, torch.tensor(10.0), torch.arange(2)),
    ):
        assert loss.item() == 0
        loss.backward()


@pytest.mark.parametrize(("count", "drawn", "expected"), [(50, 10, 10), (50, 2, 3), (5, 10, 5)])
def test_nouns_are_the_labels_and_others_once_each(count: int, drawn: int, expected: int) -> None:
    labels = torch.tensor([4, 1, 4, 3])
    found = federated_nouns(labels, count, drawn=drawn, generator=torch.Generator().manual_seed(0)).tolist()
    assert found[:3] == [1, 3, 4]
    assert len(set(found)) == len(found) == expected
    assert max(found) < count


def test_each_noun_is_a_question_of_its_own() -> None:
    regions, nouns, labels = vectors(2, 0), vectors(3, 1), torch.tensor([2, 0])
    logits = 4 * normalize(regions, dim=1) @ normalize(nouns, dim=1).T
    expected = sum(
        math.log1p(math.exp(-float(logits[r, n]) if labels[r] == n else float(logits[r, n])))
        for r in range(2)
        for n in (0, 2)
    )
    found = noun_loss(regions, nouns, labels, torch.tensor(4.0), torch.tensor([0, 2]))
    assert found.item() == pytest.approx(expected / 2, rel=1e-5)
