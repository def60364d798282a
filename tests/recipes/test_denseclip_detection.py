"""DenseCLIP's detectors from a data set's line to a folder, and from the folder to boxes in a closed list of words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from closeup.data.world import World
from closeup.errors import InputError
from closeup.heads.dense_detector import DenseDetector, new_dense_detector
from closeup.heads.dense_predictor import save_dense_predictor
from closeup.heads.denseclip_detection_config import DenseClipDetectorConfig
from closeup.heads.saved import load_detector
from closeup.predict import detect, evaluate_detection
from closeup.predict.words import detector_bank
from closeup.recipes.denseclip_detection_config import MASK_RCNN_PRESETS, RETINANET_PRESETS
from closeup.recipes.detection_config import Presets
from closeup.recipes.run_detection import DetectorTraining, Maker, train_detector
from tiny_clips import picture

SMALL = {"channels": 16, "decoder_width": 16, "decoder_layers": 1, "candidates": 60, "contexts": 2}
NARROW = {"hidden": 16, "layers": 32, "proposals": 30, "regions": 32}
KINDS = {"retinanet": RETINANET_PRESETS, "mask-rcnn": MASK_RCNN_PRESETS}


def wanted(head: str, **changes: Any) -> DetectorTraining:  # noqa: ANN401
    training = {"steps": 3, "batch_size": 4, "precision": "fp32", "workers": 0, "warmup": 0}
    settings: dict[str, Any] = {"images": "world?count=8&size=64", "preset": "tiny", "config": {"size": 64}}
    narrow = NARROW if head == "mask-rcnn" else {}
    return DetectorTraining(**{**settings, "novel": (), "head": {**SMALL, **narrow}, "training": training, **changes})


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[DenseDetector, Path]:
    """Return a detector as it was after training, and the folder that it was saved in."""
    kept: list[DenseDetector] = []

    def save(detector: DenseDetector, folder: Path, card: object, **options: Any) -> Path:  # noqa: ANN401
        kept.append(detector)
        return save_dense_predictor(detector, folder, card, **options)  # type: ignore[arg-type]

    folder = tmp_path_factory.mktemp("trained") / request.param
    done = train_detector(wanted(request.param), folder, Maker(new_dense_detector, save, KINDS[request.param]))
    parts = {"retinanet": {"classes", "boxes", "scores"}}
    parts["mask-rcnn"] = parts["retinanet"] | {"objectness", "proposal_boxes", "masks"}
    assert parts[request.param] | {"loss"} <= done.figures.keys()
    (detector,) = kept
    return detector, folder


def test_a_detector_is_trained_saved_and_loaded_as_it_was(trained: tuple[DenseDetector, Path]) -> None:
    detector, folder = trained
    detector.head.eval()
    loaded = load_detector(folder, device="cpu", precision="fp32")
    assert isinstance(loaded, DenseDetector)
    assert loaded.words == tuple(name for name, thing in zip(World().names, World().things, strict=True) if thing)
    assert not any(loaded.novel)
    state = detector.head.state_dict()
    for name, value in loaded.head.state_dict().items():
        assert torch.equal(value, state[name].cpu()), name
    image = picture(50, 80).numpy()
    one, other = (detect(each, image, threshold=0.0, limit=20) for each in (detector, loaded))
    assert len(one) == 20
    assert torch.equal(one.scores, other.scores)
    assert torch.equal(one.boxes, other.boxes)
    assert other.provenance.fingerprint == loaded.eyes.fingerprint
    assert other.provenance.region_encoder == "denseclip-detector"


def test_boxes_are_inside_of_the_picture_and_masks_where_there_are_some(trained: tuple[DenseDetector, Path]) -> None:
    detector = load_detector(trained[1], device="cpu", precision="fp32")
    found = detect(detector, picture(50, 80).numpy(), threshold=0.0, limit=20)
    assert found.names == detector.words
    assert bool((found.boxes >= -1e-4).all())
    assert bool((found.boxes <= torch.tensor([80, 50, 80, 50]) + 1e-3).all())
    assert (found.masks is not None) == detector.outlines
    if found.masks is not None:
        assert found.masks.shape == (20, 50, 80)
    assert isinstance(found.picture().size, tuple)


def test_some_words_in_any_order_score_as_among_all(trained: tuple[DenseDetector, Path]) -> None:
    detector = load_detector(trained[1], device="cpu", precision="fp32")
    image, (first, second) = picture(50, 80).numpy(), (detector.words[5], detector.words[2])
    every = detect(detector, image, threshold=0.0, limit=100_000)
    some = detect(detector, image, [first.upper(), f" {second}"], threshold=0.0, limit=100_000)
    assert set(some.labels.tolist()) == {0, 1}
    best = {word: float(every.scores[np.array(every.words) == word].max()) for word in (first, second)}
    for label, word in enumerate((first, second)):
        assert float(some.scores[some.labels == label].max()) == pytest.approx(best[word], rel=1e-4)
    with pytest.raises(InputError, match=rf"'{first}x' is not among the 24 .*'{first}'"):
        detect(detector, image, [second, f"{first}x"])
    bank = detector_bank(detector, [first, second])
    assert torch.equal(detect(detector, image, bank, threshold=0.0).scores, some.scores[:100])
    assert (bank.names, bank.templates) == ((first, second), "learned contexts (2)")
    with pytest.raises(InputError, match="Leave the templates out"):
        detect(detector, image, templates="simple")


def test_average_precision_is_measured_on_all_words_as_base_ones(trained: tuple[DenseDetector, Path]) -> None:
    detector = load_detector(trained[1], device="cpu", precision="fp32")
    report = evaluate_detection(detector, World("val", count=2, size=(64, 64)), masks=detector.outlines, workers=0)
    assert not any(report.novel)
    summary = report.summary()
    assert summary["base AP"] == summary["all AP"]
    with pytest.raises(InputError, match="not among the 24"):
        evaluate_detection(detector, World("val", count=2), words=[f"word {index}" for index in range(24)])


def test_a_finished_training_is_saved_again_as_it_was(tmp_path: Path) -> None:
    maker = Maker(new_dense_detector, save_dense_predictor, RETINANET_PRESETS)
    task = wanted("retinanet")
    train_detector(task, tmp_path / "whole", maker)
    short = replace(task, training={**task.training, "save_every": 1})
    train_detector(short, tmp_path / "parts", maker)
    again = train_detector(short, tmp_path / "parts", maker, resume=True)
    assert again.folder == tmp_path / "parts"
    one, other = (load_detector(tmp_path / name, device="cpu").head.state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("presets", KINDS.values(), ids=KINDS)
def test_presets_fit_their_heads(presets: Presets) -> None:
    for name, preset in presets.items():
        seen, training, head = preset(100_170)
        config = DenseClipDetectorConfig().replace(**head)
        assert KINDS[config.head] is presets
        assert (config.scores, config.auxiliary, config.backbone_pace) == ("divided", 1.0, 0.1)
        assert training.clip_norm == (0.1 if name.startswith("paper") else 1.0)
        if name.startswith("paper"):
            assert (seen.size, training.batch_size, training.steps, training.warmup) == (1067, 16, 12 * 6261, 500)
            assert (training.rate, training.weight_decay) == (1e-4 if config.head == "retinanet" else 2e-4, 1e-4)
