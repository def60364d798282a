from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from closeup.errors import InputError
from closeup.viz.kmeans import kmeans, kmeans_sheet, match_labels
from closeup.viz.palette import colours


def groups(seed: int, count: int = 60, dim: int = 16, clusters: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.arange(count) % clusters
    return torch.eye(dim)[truth] + 0.05 * torch.randn(count, dim, generator=generator), truth


def same_partition(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one[:, None] == one[None], other[:, None] == other[None])


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_groups_that_are_apart_are_found_whatever_their_length_and_order(seed: int) -> None:
    vectors, truth = groups(seed)
    generator = torch.Generator().manual_seed(seed)
    stretched = vectors * (0.1 + 10 * torch.rand(len(vectors), 1, generator=generator))
    mixed = torch.randperm(len(vectors), generator=generator)
    assert same_partition(kmeans(stretched, 4), truth)
    assert same_partition(kmeans(vectors[mixed], 4, seed=seed), truth[mixed])


def test_every_vector_is_nearest_to_its_own_clusters_centre() -> None:
    vectors = torch.randn(200, 8, generator=torch.Generator().manual_seed(1))
    labels = kmeans(vectors, 5)
    points = normalize(vectors, dim=1)
    centres = normalize(torch.stack([points[labels == i].sum(dim=0) for i in range(5)]), dim=1)
    assert torch.equal((points @ centres.T).argmax(dim=1), labels)


def test_the_same_seed_gives_the_same_clusters() -> None:
    vectors = torch.randn(100, 8, generator=torch.Generator().manual_seed(2))
    assert torch.equal(kmeans(vectors, 6, seed=3), kmeans(vectors, 6, seed=3))


def test_fewer_different_vectors_than_clusters() -> None:
    assert kmeans(torch.ones(5, 3), 8).tolist() == [0] * 5
    assert kmeans(torch.randn(1, 3), 8).tolist() == [0]
    assert sorted(kmeans(torch.eye(3), 8).tolist()) == [0, 1, 2]
    assert kmeans(torch.eye(3), 1).tolist() == [0, 0, 0]


@given(seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_renamed_clusters_take_the_names_of_those_they_came_from(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    reference = torch.arange(24).view(4, 6) % 5
    assert torch.equal(match_labels(torch.randperm(5, generator=generator)[reference], reference, 5), reference)


@given(seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_renaming_never_merges_clusters(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels, reference = torch.randint(0, 6, (2, 5, 5), generator=generator)
    assert same_partition(match_labels(labels, reference, 6).flatten(), labels.flatten())


def test_the_sheet_shows_the_image_and_clusters_in_matching_colours() -> None:
    truth = torch.zeros(6, 8, dtype=torch.int64)
    truth[:, 5:] = 1
    coarse = torch.eye(4)[truth].permute(2, 0, 1)
    fine = torch.eye(4)[1 - truth].permute(2, 0, 1).repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    photo = PIL.Image.new("RGB", (400, 300), (9, 9, 9))
    sheet = kmeans_sheet(photo, [("before", coarse), ("after", fine)], clusters=2, alpha=1.0)
    pixels = np.array(sheet)
    first, second = colours()[:2]
    gap = (sheet.width - 1200) // 4
    bottom = sheet.height - gap - 150
    for panel in (1, 2):
        left = gap + panel * (400 + gap)
        assert tuple(pixels[bottom, left + 50]) == first
        assert tuple(pixels[bottom, left + 350]) == second
    assert tuple(pixels[bottom, gap + 50]) == (9, 9, 9)


def test_the_sheet_is_deterministic_and_takes_small_images_and_one_cluster() -> None:
    dense = torch.randn(8, 3, 4, generator=torch.Generator().manual_seed(0))
    photo = PIL.Image.new("RGB", (64, 48))
    assert kmeans_sheet(photo, [("a", dense)]).tobytes() == kmeans_sheet(photo, [("a", dense)]).tobytes()
    kmeans_sheet(photo, [("größer", dense.half())], clusters=1, min_side=0)
    assert kmeans_sheet(photo, []).width > 0


def test_unusable_input_is_refused_with_the_value() -> None:
    with pytest.raises(InputError, match="not 0"):
        kmeans(torch.ones(2, 2), 0)
    with pytest.raises(InputError, match=r"\(0, 2\)"):
        kmeans(torch.ones(0, 2), 2)
    with pytest.raises(InputError, match="finite"):
        kmeans(torch.full((2, 2), float("nan")), 2)
