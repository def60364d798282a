from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from closeup._types import IGNORE
from closeup.errors import InputError
from closeup.viz.canvas import borders, enlarged, grown, shrunk
from closeup.viz.labels import inner_depth
from closeup.viz.overlay import draw_regions, draw_segmentation
from closeup.viz.palette import name_colours

RED, BLUE = (200, 10, 10), (10, 10, 200)


def photo(width: int = 120, height: int = 80) -> PIL.Image.Image:
    ramp = np.linspace(40, 200, width * height * 3).reshape(height, width, 3)
    return PIL.Image.fromarray(ramp.astype(np.uint8))


def grey(x: int, y: int) -> int:
    return int(np.array(photo().convert("L"))[y, x])


def pixel(picture: PIL.Image.Image, x: int, y: int) -> tuple[int, ...]:
    return tuple(np.array(picture)[y, x].tolist())


def halves(width: int = 120, height: int = 80) -> torch.Tensor:
    labels = torch.zeros(height, width, dtype=torch.int64)
    labels[:, width // 2 :] = 1
    return labels


def test_classes_are_mixed_with_the_grey_photograph_at_known_pixels() -> None:
    drawn = draw_segmentation(photo(), halves(), ["a", "b"], alpha=0.5, labels=False, colours=[RED, BLUE], min_side=0)
    assert drawn.size == (120, 80)
    for x, colour in ((10, RED), (110, BLUE)):
        expected = np.array(colour) / 2 + grey(x, 40) / 2
        assert np.abs(pixel(drawn, x, 40) - expected).max() <= 0.5
    assert min(pixel(drawn, 60, 40)) > 150  # the border is light


def test_pixels_without_a_class_stay_as_they_are() -> None:
    labels = torch.full((80, 120), IGNORE)
    drawn = draw_segmentation(photo(), labels, ["a"], min_side=0)
    assert np.array_equal(np.array(drawn), np.array(photo()))


def test_a_small_image_is_enlarged_by_a_whole_factor_and_a_large_one_is_not() -> None:
    assert draw_segmentation(photo(), halves(), ["a", "b"]).size == (480, 320)
    assert draw_segmentation(photo(400, 300), halves(400, 300), ["a", "b"]).size == (400, 300)
    assert enlarged(photo(64, 64), 384)[1] == 6
    assert enlarged(photo(1, 1), 0)[0].size == (1, 1)


def test_one_class_has_no_border_and_its_name_in_the_middle() -> None:
    plain = draw_segmentation(photo(400, 300), halves(400, 300) * 0, ["sky"], labels=False, alpha=1.0)
    assert len(np.unique(np.array(plain).reshape(-1, 3), axis=0)) == 1
    named = draw_segmentation(photo(400, 300), halves(400, 300) * 0, ["sky"], alpha=1.0, colours=[RED])
    rows, columns = np.nonzero((np.array(named) != RED).any(axis=2))
    assert abs(rows.mean() - 150) < 6
    assert abs(columns.mean() - 200) < 6


def test_names_appear_only_where_the_class_can_carry_them_but_all_are_in_the_legend() -> None:
    labels = halves(400, 300) * 0
    labels[150, 10:390] = 1  # a line, one pixel thick
    one = draw_segmentation(photo(400, 300), labels, ["sky", "wire"])
    other = draw_segmentation(photo(400, 300), labels, ["sky", ""], colours=name_colours(["sky", "wire"]))
    assert np.array_equal(np.array(one), np.array(other))
    whole = draw_segmentation(photo(400, 300), labels, ["sky", "wire"], legend=True)
    assert whole.height > 300
    assert np.array_equal(np.array(whole)[:300], np.array(one))
    strip = np.array(whole)[300:]
    assert all((strip == colour).all(axis=2).any() for colour in name_colours(["sky", "wire"]))


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (64, 64), (333, 7)])
def test_any_size_and_any_name_can_be_drawn(size: tuple[int, int]) -> None:
    labels = torch.arange(size[0] * size[1]).view(size[1], size[0]) % 3
    for side in (0, 96):
        draw_segmentation(photo(*size), labels, ["трава", "犬" * 40, "a\nb"], min_side=side, legend=True)
        box = torch.tensor([[0.0, 0.0, size[0], size[1]]])
        draw_regions(photo(*size), boxes=box, texts=["größer 🐶"], min_side=side)


def test_drawing_is_deterministic_and_leaves_the_image_alone() -> None:
    image = photo()
    before = image.tobytes()
    boxes = torch.tensor([[5.0, 5, 40, 40], [30, 20, 119, 79]])
    first = draw_regions(image, boxes=boxes, masks=halves()[None].bool().expand(2, -1, -1), texts=["a", "b"])
    again = draw_regions(image, boxes=boxes, masks=halves()[None].bool().expand(2, -1, -1), texts=["a", "b"])
    assert first.tobytes() == again.tobytes()
    assert image.tobytes() == before


def test_a_box_is_outlined_on_its_own_pixels_half_open() -> None:
    drawn = np.array(draw_regions(photo(), boxes=torch.tensor([[20.0, 30, 60, 70]]), colours=[RED], min_side=0))
    assert tuple(drawn[30, 40]) == tuple(drawn[69, 40]) == tuple(drawn[50, 20]) == tuple(drawn[50, 59]) == RED
    original = np.array(photo())
    assert np.array_equal(drawn[33:67, 24:56], original[33:67, 24:56])
    assert np.array_equal(drawn[:29], original[:29])
    assert np.array_equal(drawn[71:], original[71:])


def test_a_mask_is_filled_and_has_a_rim_of_its_colour() -> None:
    mask = torch.zeros(1, 80, 120, dtype=torch.bool)
    mask[0, 20:60, 30:90] = True
    drawn = np.array(draw_regions(photo(), masks=mask, colours=[RED], alpha=0.5, min_side=0))
    assert tuple(drawn[20, 60]) == RED
    assert np.abs(drawn[40, 60] - (np.array(RED) / 2 + grey(60, 40) / 2)).max() <= 0.5
    assert np.array_equal(drawn[:19], np.array(photo())[:19])


def test_small_regions_lie_over_large_ones_whatever_the_order() -> None:
    large, small = torch.ones(80, 120, dtype=torch.bool), torch.zeros(80, 120, dtype=torch.bool)
    small[30:50, 50:80] = True
    for masks, colours in (([large, small], [RED, BLUE]), ([small, large], [BLUE, RED])):
        drawn = draw_regions(photo(), masks=torch.stack(masks), colours=colours, alpha=1.0, min_side=0)
        assert pixel(drawn, 65, 40) == BLUE
        assert pixel(drawn, 10, 40) == RED


@given(x=st.floats(-50, 500), y=st.floats(-50, 400), text=st.sampled_from(["dog", "a much longer name of a thing"]))
@settings(max_examples=25, deadline=None)
def test_a_label_is_never_cut_at_the_edge(x: float, y: float, text: str) -> None:
    box = torch.tensor([[x, y, x + 30, y + 20]])
    inside = torch.tensor([[100.0, 100, 130, 120]])
    colour = (1, 2, 3)
    plates = [
        np.array(draw_regions(photo(480, 360), boxes=place, texts=[text], colours=[colour], min_side=0))
        for place in (box, inside)
    ]
    # The plate's ink is white and occurs nowhere else: as much of it must show as for a label amid the picture.
    shown = [int((plate == 255).all(axis=2).sum()) for plate in plates]
    assert shown[0] == shown[1] > 0


def test_scores_are_written_and_no_text_means_no_label() -> None:
    box = torch.tensor([[50.0, 100, 200, 200]])
    bare = draw_regions(photo(400, 300), boxes=box, colours=[RED])
    scored = draw_regions(photo(400, 300), boxes=box, colours=[RED], scores=[0.5])
    assert bare.tobytes() != scored.tobytes()
    assert bare.tobytes() == draw_regions(photo(400, 300), boxes=box, colours=[RED], texts=[" "]).tobytes()


def test_no_region_leaves_the_image_as_it_is() -> None:
    boxes, masks = torch.zeros(0, 4), torch.zeros(0, 80, 120, dtype=torch.bool)
    assert draw_regions(photo(), boxes=boxes, texts=[], scores=[], min_side=0).tobytes() == photo().tobytes()
    assert draw_regions(photo(), masks=masks, min_side=0).tobytes() == photo().tobytes()


def test_an_empty_mask_and_a_box_outside_draw_nothing() -> None:
    nothing = torch.zeros(1, 80, 120, dtype=torch.bool)
    assert draw_regions(photo(), masks=nothing, texts=["a"], min_side=0).tobytes() == photo().tobytes()
    away = torch.tensor([[500.0, 500, 600, 600], [-50.0, -50, -10, -10]])
    assert draw_regions(photo(), boxes=away, min_side=0).tobytes() == photo().tobytes()


def test_unusable_input_is_refused_with_the_value() -> None:
    with pytest.raises(InputError, match=r"\(80, 60\) but the image is \(80, 120\)"):
        draw_segmentation(photo(), halves()[:, :60], ["a", "b"])
    with pytest.raises(InputError, match="0 to 1 but there are 1 names"):
        draw_segmentation(photo(), halves(), ["a"])
    with pytest.raises(InputError, match="2 names and 1 colours"):
        draw_segmentation(photo(), halves(), ["a", "b"], colours=[RED])
    with pytest.raises(InputError, match=r"box 1 is .*nan"):
        draw_regions(photo(), boxes=torch.tensor([[0.0, 0, 1, 1], [0, 0, float("nan"), 1]]))
    with pytest.raises(InputError, match="nothing to draw"):
        draw_regions(photo(), texts=["a"])
    with pytest.raises(InputError, match="'boxes': 2, 'texts': 1"):
        draw_regions(photo(), boxes=torch.zeros(2, 4), texts=["a"])
    with pytest.raises(InputError, match="80 x 60"):
        draw_regions(photo(), masks=torch.ones(1, 80, 60, dtype=torch.bool))


def test_growing_and_shrinking_a_mask_by_counting() -> None:
    mask = torch.zeros(9, 9, dtype=torch.bool)
    mask[4, 4] = True
    assert int(grown(mask, 0).sum()) == 1
    assert int(grown(mask, 1).sum()) == 5
    assert int(grown(mask, 2).sum()) == 21
    assert torch.equal(shrunk(grown(mask, 2), 2).nonzero(), mask.nonzero())


def test_borders_touch_another_label() -> None:
    labels = torch.zeros(4, 6, dtype=torch.int64)
    labels[:, 3:] = 1
    assert borders(labels).sum(dim=0).tolist() == [0, 0, 4, 4, 0, 0]
    assert not borders(labels * 0).any()


@pytest.mark.parametrize("factor", [1, 5])
def test_the_deepest_place_of_a_square_is_its_middle(factor: int) -> None:
    labels = torch.zeros(121 * factor, 201 * factor, dtype=torch.int64)
    labels[20 * factor : 61 * factor, 100 * factor : 141 * factor] = 1
    depth = torch.where(labels == 1, inner_depth(labels), 0)
    y, x = divmod(int(depth.argmax()), depth.shape[1])
    assert abs(y - 40.5 * factor) <= 3 * factor
    assert abs(x - 120.5 * factor) <= 3 * factor
    assert abs(int(depth.max()) - 20 * factor) <= 3 * factor
