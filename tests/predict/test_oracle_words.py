from __future__ import annotations

import numpy as np
import pytest
import torch

from closeup._types import IGNORE
from closeup.data.record import Record
from closeup.data.world import World
from closeup.errors import DataError
from closeup.predict.evaluate_segmentation import evaluate_scorer
from closeup.predict.mask_sources import TruthMasks
from closeup.predict.oracle_words import OracleWordsScorer, most_overlapped
from closeup.predict.words import as_bank
from tiny_clips import vit_clip


def test_a_mask_has_the_word_it_shares_most_pixels_with() -> None:
    rng = np.random.default_rng(0)
    truth = torch.from_numpy(rng.integers(-1, 4, (12, 9)))
    planes = torch.from_numpy(rng.random((6, 12, 9)) > 0.6)
    planes[5] = truth == IGNORE
    expected = []
    for plane in planes:
        counts = [int((truth[plane] == label).sum()) for label in range(4)]
        expected.append(int(np.argmax(counts)) if max(counts) else IGNORE)
    assert most_overlapped(planes, truth, 4).tolist() == expected
    assert expected[5] == IGNORE


def test_true_masks_with_true_words_make_no_mistake_but_where_they_lie_over_each_other() -> None:
    world = World("val", count=3)
    report = evaluate_scorer(OracleWordsScorer(vit_clip(), TruthMasks()), world, workers=0)
    assert report.summary()["miou"] == pytest.approx(1.0)


def test_without_a_label_map_there_are_no_true_words() -> None:
    record = Record("one", np.zeros((4, 4, 3), np.uint8), None)
    clip = vit_clip()
    with pytest.raises(DataError, match="no label map"):
        OracleWordsScorer(clip, TruthMasks()).score(record, record.load(), as_bank(clip, ["star"]))
