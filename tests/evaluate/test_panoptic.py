from __future__ import annotations

import numpy as np
import pytest
import torch

from closeup._types import IGNORE
from closeup.data.coco_panoptic import CocoPanoptic, read_segments
from closeup.errors import InputError
from closeup.evaluate.panoptic import PanopticQuality, Segments
from goldens import SHARED

CLASSES = 4
SAMPLE = SHARED / "data" / "coco_panoptic_sample" / "sample_data"

# What panopticapi's pq_compute (commit 1ad5afa) gives for `blocks(100 * seed + picture)`, three pictures each, written
# as PNGs and json: classes 0 and 1 are things, blocks that nothing shows of are left out of the json.
OFFICIAL = {
    0: (0.5262225565538364, 0.803739264733257, 0.6601190476190476, 0.42679217062625135, 0.6256529424814214),
    1: (0.29365210799184804, 0.4624405745751847, 0.47916666666666663, 0.24246155864103885, 0.3448426573426573),
    2: (0.45386599107875236, 0.8236103924284386, 0.5499999999999999, 0.3559674861221253, 0.502815243557066),
    3: (0.28234266623871823, 0.4925525401076231, 0.4089285714285714, 0.4911108383020839, 0.07357449417535254),
    4: (0.4751375180216217, 0.7311558395578741, 0.6347222222222222, 0.6372117198368636, 0.3130633162063798),
    5: (0.26480808214154244, 0.8019150013790626, 0.3248376623376623, 0.33741944330179624, 0.19219672098128865),
}
FIGURES = ("pq", "sq", "rq", "things pq", "stuff pq")

# The same for the truth of COCO's two sample pictures, moved by 5 rows and 9 columns around the border, as prediction.
SAMPLE_OFFICIAL = {
    "pq": 0.41613963577613877,
    "sq": 0.556780711984984,
    "rq": 0.6252090301003345,
    "things pq": 0.1443444159628176,
    "stuff pq": 0.6879348555894598,
}


def blocks(seed: int, parts: int = 7, *, crowds: bool = True) -> tuple[Segments, Segments]:
    """Return a prediction and a truth: blocks one over the other, in the prediction moved, redrawn or mistaken."""
    rng, size = np.random.default_rng(seed), (40, 56)

    def draw(base: list[tuple[list[int], int]] | None = None) -> tuple[np.ndarray, list[tuple[list[int], int]]]:
        ids, drawn = np.zeros(size, np.int64), []
        for part in range(1, parts + 1):
            if base is None or rng.random() < 0.3:
                top, left = rng.integers(0, size[0] - 6), rng.integers(0, size[1] - 6)
                box = [int(side) for side in (top, left, top + rng.integers(6, 24), left + rng.integers(6, 30))]
                label = int(rng.integers(CLASSES))
            else:
                box, label = base[part - 1]
                box = [max(0, side) for side in [side + int(rng.integers(-2, 3)) for side in box]]
                label = int(rng.integers(CLASSES)) if rng.random() < 0.15 else label
            ids[box[0] : box[2], box[1] : box[3]] = part
            drawn.append((box, label))
        return ids, drawn

    truth, boxes = draw()
    found, guessed = draw(boxes)
    crowd = torch.tensor([bool(crowds and rng.random() < 0.2) for _ in range(parts)])
    labels = [torch.tensor([label for _, label in each]) for each in (guessed, boxes)]
    return (
        Segments(torch.from_numpy(found) - 1, labels[0]),
        Segments(torch.from_numpy(truth) - 1, labels[1], crowd),
    )


def quality() -> PanopticQuality:
    return PanopticQuality([f"class {index}" for index in range(CLASSES)], [True, True, False, False])


@pytest.mark.parametrize("seed", OFFICIAL)
def test_the_official_figures(seed: int) -> None:
    metric = quality()
    for picture in range(3):
        metric.update(*blocks(100 * seed + picture))
    found = metric.compute().summary()
    assert [found[name] for name in FIGURES] == pytest.approx(OFFICIAL[seed], abs=1e-12)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no COCO panoptic sample in {SAMPLE}")
def test_the_official_figures_of_the_coco_sample() -> None:
    reader = CocoPanoptic(SAMPLE / "panoptic_examples.json", SAMPLE / "panoptic_examples", crowd="keep")
    metric = PanopticQuality(reader.names, reader.things)
    for index in range(len(reader)):
        record = reader[index]
        assert record.masks is not None
        assert record.labels is not None
        places = torch.full(record.masks.shape[1:], IGNORE)
        for place, mask in enumerate(record.masks):
            places[mask] = place
        ids = read_segments(SAMPLE / "panoptic_examples" / f"{record.id.zfill(12)}.png")
        assert ids.shape == tuple(places.shape)
        groups = CocoPanoptic(SAMPLE / "panoptic_examples.json", SAMPLE / "panoptic_examples")[index].groups
        planes = record.masks[:0] if groups is None or groups.masks is None else groups.masks
        crowd = torch.tensor([any(torch.equal(mask, plane) for plane in planes) for mask in record.masks])
        assert int(crowd.sum()) > 0
        moved = Segments(places.roll((5, 9), (0, 1)), record.labels)
        metric.update(moved, Segments(places, record.labels, crowd))
    found = metric.compute().summary()
    assert {name: found[name] for name in SAMPLE_OFFICIAL} == pytest.approx(SAMPLE_OFFICIAL, abs=1e-12)


def test_the_truth_itself_is_perfect_and_nothing_is_nothing() -> None:
    metric = quality()
    _, truth = blocks(3, crowds=False)
    metric.update(truth, truth)
    assert all(value in (1.0, None) for value in metric.compute().summary().values())
    metric = quality()
    metric.update(Segments(torch.full((40, 56), IGNORE), torch.zeros(0, dtype=torch.long)), truth)
    assert metric.compute().summary()["pq"] == 0
    assert quality().compute().summary()["pq"] is None


def test_the_order_of_segments_and_of_pictures_changes_nothing() -> None:
    one, two = quality(), quality()
    for seed in range(3):
        found, truth = blocks(seed, crowds=False)
        one.update(found, truth)
    order = torch.tensor([3, 1, 0, 6, 5, 4, 2])
    for seed in (2, 0, 1):
        found, truth = blocks(seed, crowds=False)
        turned = torch.where(found.places == IGNORE, IGNORE, order.argsort()[found.places.clamp(min=0)])
        two.update(Segments(turned, found.labels[order]), truth)
    assert one.compute().summary() == pytest.approx(two.compute().summary())


def test_some_classes_apart() -> None:
    metric = quality()
    for seed in range(3):
        metric.update(*blocks(seed))
    scores = metric.compute()
    alone = scores.summary([True, False, False, False])
    assert alone["pq"] == pytest.approx(float(scores.per_class()["pq"][0]))
    assert alone["stuff pq"] is None


def test_what_does_not_fit_is_said() -> None:
    found, truth = blocks(0)
    with pytest.raises(InputError, match="at the size of the picture"):
        quality().update(Segments(found.places[1:], found.labels), truth)
    with pytest.raises(InputError, match="true labels"):
        quality().update(found, Segments(truth.places, truth.labels + CLASSES))
    with pytest.raises(InputError, match="is void"):
        quality().update(Segments(found.places, found.labels * 0 - 1), truth)
    with pytest.raises(InputError, match="segments"):
        Segments(found.places, found.labels[:2])
    with pytest.raises(InputError, match="marks of crowds"):
        Segments(found.places, found.labels, torch.tensor([True]))
    with pytest.raises(InputError, match="0 names"):
        PanopticQuality([], [])
