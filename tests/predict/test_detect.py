"""Detection in words: boxes in the photo's own pixels, scores by rule, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from closeup.errors import InputError
from closeup.heads.rpn import new_proposer
from closeup.heads.saved import Detector, new_c4, new_detector
from closeup.match.detections import Suppression
from closeup.models.clip import Clip
from closeup.predict import classify, detect, detect_zero_shot
from closeup.predict.words import as_bank
from closeup.regions.propose import propose
from closeup.text import Vocabulary
from tiny_clips import picture, vit_clip
from tiny_towers import randomise

WORDS = ["cat", "dog", "grass", "red car"]
BOXES = torch.tensor([[0.0, 0, 40, 30], [5, 5, 60, 48], [6, 5, 60, 49], [33.5, 2.25, 70, 20]])
NO_NMS = Suppression(overlap=1.0)


def image(seed: int = 0) -> np.ndarray:
    return picture(50, 80, seed).numpy()


@pytest.fixture(scope="module", params=["fvit", "c4"])
def detector(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Detector:
    monkey = pytest.MonkeyPatch()
    monkey.setenv("CLOSEUP_CACHE", str(tmp_path_factory.mktemp("cache")))
    pyramid = {"channels": 16, "proposals": 40, "candidates": 100}
    clip, known = vit_clip(layers=4), (["cat", "dog"], [False, True])
    torch.manual_seed(0)
    if request.param == "fvit":
        small = {**pyramid, "hidden": 16, "bins": 3, "convolutions": 1}
        made = new_detector(clip, *known, templates="simple", size=64, config=small)
        randomise(made.head, 0)
    else:
        proposer = new_proposer(clip, (), (), templates="simple", size=64, config=pyramid)
        randomise(proposer.head, 0)
        settings = {"temperature": 0.1, "objectness": "sigmoid"}
        made = new_c4(clip, *known, proposer=proposer, templates="simple", size=64, config=settings)
    made.head.eval()
    monkey.undo()
    return made


def test_a_clip_alone_scores_a_box_by_its_softmax(clip: Clip) -> None:
    result = detect_zero_shot(clip, image(), WORDS, boxes=BOXES, threshold=0.0, suppression=NO_NMS)
    expected = classify(clip, image(), WORDS, boxes=BOXES, top=4)
    assert len(result) == 16
    assert bool((result.scores.diff() <= 0).all())
    table = {
        (row, label): share
        for row in range(4)
        for label, share in zip(expected.labels[row].tolist(), expected.probabilities[row].tolist(), strict=True)
    }
    for box, label, score in zip(result.boxes, result.labels.tolist(), result.scores.tolist(), strict=True):
        row = int((box == BOXES).all(dim=1).nonzero()[0, 0])
        assert score == pytest.approx(table[row, label], abs=1e-5)


def test_of_boxes_that_overlap_the_best_stays_for_each_word(clip: Clip) -> None:
    result = detect_zero_shot(clip, image(), WORDS, boxes=BOXES[1:3], threshold=0.0)
    assert len(result) == 4
    assert sorted(result.labels.tolist()) == [0, 1, 2, 3]


def test_objectness_takes_part_as_a_geometric_mean(clip: Clip) -> None:
    logits = torch.tensor([2.0, -1.0, 0.0, 4.0])
    plain = detect_zero_shot(clip, image(), WORDS[:1], boxes=BOXES, threshold=0.0, suppression=NO_NMS)
    assert plain.scores.tolist() == [1.0] * 4, "one word alone"
    joint = detect_zero_shot(clip, image(), WORDS[:1], boxes=BOXES, logits=logits, threshold=0.0, suppression=NO_NMS)
    torch.testing.assert_close(joint.scores, logits.sigmoid().sqrt().sort(descending=True).values)
    official = detect_zero_shot(
        clip, image(), WORDS[:1], boxes=BOXES, logits=logits, objectness="logit", threshold=0.0, suppression=NO_NMS
    )
    torch.testing.assert_close(official.scores, torch.tensor([2.0, 2.0**0.5]), msg="above 1, and no negative logit")


def test_without_boxes_parts_of_the_picture_are_named(clip: Clip) -> None:
    result = detect_zero_shot(clip, image(), WORDS, threshold=0.0, limit=1000, suppression=NO_NMS)
    found = {tuple(box) for box in result.boxes.tolist()}
    assert found == {tuple(box) for box in propose(image()).boxes.tolist()}


def test_a_detector_finds_boxes_in_the_photos_own_pixels(detector: Detector) -> None:
    result = detect(detector, image(), WORDS, threshold=0.0, limit=50)
    assert 0 < len(result) <= 50
    assert result.size == (50, 80)
    assert float(result.boxes.min()) >= -1e-4
    assert float(result.boxes[:, 2].max()) <= 80 + 1e-3
    assert float(result.boxes[:, 3].max()) <= 50 + 1e-3
    clip = detector.clip
    canvas, placement = clip.preprocess(image(), policy="longest-pad-corner", size=64)
    rows, owner = detector.rows(as_bank(clip, WORDS))
    (direct,) = detector.head.detect(
        canvas[None], torch.tensor([[40, 64]]), rows, [False, True, True, True], owner=owner, threshold=0.0, limit=50
    )
    torch.testing.assert_close(result.scores, direct.scores)
    torch.testing.assert_close(placement.boxes_to_canvas(result.boxes), direct.boxes, atol=1e-3, rtol=1e-4)
    assert result.provenance.settings["threshold"] == 0.0
    assert result.provenance.region_encoder == detector.head.kind


def test_other_words_do_not_move_boxes_and_synonyms_are_one_word(detector: Detector) -> None:
    two = detect(detector, image(), Vocabulary(["cat", "dog"], synonyms={"cat": ["kitten"]}), threshold=0.0)
    assert set(two.words) <= {"cat", "dog"}

    def moved(word: str, other: str) -> bool:
        alone, both = (Vocabulary([word], synonyms={word: more}) for more in ([], [other]))
        scores = [detect(detector, image(), words, threshold=0.0).scores.tolist() for words in (alone, both)]
        return scores[0] != scores[1]

    # Whichever of two words is the nearer to a box, it counts as the other's synonym.
    assert moved("cat", "kitten") or moved("kitten", "cat")


def test_results_are_pictures_arrays_and_coco(detector: Detector, tmp_path: Path) -> None:
    result = detect(detector, image(), WORDS, threshold=0.0, limit=5)
    assert result.picture().size >= (80, 50)
    rows = result.to_coco()["annotations"]
    assert [row["score"] for row in rows] == pytest.approx(result.scores.tolist(), abs=1e-4)
    assert result.arrays()["boxes"].shape == (5, 4)
    assert result.save(tmp_path / "found.npz").is_file()


def test_what_cannot_be_asked_is_said(clip: Clip, detector: Detector) -> None:
    with pytest.raises(InputError, match="threshold of 2"):
        detect(detector, image(), WORDS, threshold=2)
    with pytest.raises(InputError, match="at most 0 objects"):
        detect_zero_shot(clip, image(), WORDS, limit=0)
    with pytest.raises(InputError, match="4 boxes have 2 objectness logits"):
        detect_zero_shot(clip, image(), WORDS, boxes=BOXES, logits=torch.zeros(2))
    with pytest.raises(InputError, match="x0, y0, x1, y1"):
        detect_zero_shot(clip, image(), WORDS, boxes=[[0, 0, 5]])
    with pytest.raises(InputError, match="box"):
        detect_zero_shot(clip, image(), WORDS, boxes=[[float("nan"), 0, 5, 5]])


def test_a_picture_in_which_nothing_is_found_has_an_empty_result(detector: Detector) -> None:
    result = detect(detector, image(), WORDS, threshold=1.0)
    assert len(result) == 0
    assert result.words == ()
    assert result.picture().width >= 80
