"""Recipe detection: what a head sees of pictures, whose boxes it never sees, and training from line to folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor, nn

from closeup.data.record import Record
from closeup.data.world import World
from closeup.errors import ConfigError, DataError, InputError, ModelError
from closeup.geometry import masks_to_boxes
from closeup.heads.c4_config import C4Config
from closeup.heads.fvit_config import FVitConfig
from closeup.heads.rpn import RpnConfig
from closeup.heads.saved import load_detector, new_detector, save_detector
from closeup.models.load import load
from closeup.recipes.detection import Detection
from closeup.recipes.detection_config import C4_PRESETS, PRESETS, RPN_PRESETS, DetectionConfig, Presets
from closeup.recipes.order import ShardedBatches, loader
from closeup.recipes.run_detection import DetectorTraining, Maker, detector_words, train_detector
from closeup.recipes.view import drawn_view, mirrored
from tiny_clips import vit_clip
from tiny_pictures import Pictures

SIDE = 64
FVIT = Maker(new_detector, save_detector)
SMALL = {"channels": 16, "hidden": 16, "bins": 3, "convolutions": 1, "proposals": 40, "candidates": 100, "regions": 32}


@dataclass(frozen=True)
class Labelled(Pictures):
    """The same pictures, their three boxes labelled cat, dog and fox."""

    names: tuple[str, ...] = ("cat", "dog", "fox")
    things: tuple[bool, ...] = (True, True, True)
    labels: tuple[int, ...] = (0, 1, 2)

    def __getitem__(self, index: int) -> Record:
        return replace(super().__getitem__(index), labels=torch.tensor(self.labels))


@dataclass(frozen=True)
class Bare(Labelled):
    """The same without masks."""

    def __getitem__(self, index: int) -> Record:
        return replace(super().__getitem__(index), masks=None)


def made(reader: Pictures | None = None, words: tuple[int | None, ...] = (0, None, 1), **changes: object) -> Detection:
    settings: dict[str, object] = {"size": SIDE, "flip": False, **changes}
    return Detection(vit_clip(), nn.Linear(1, 1), Labelled() if reader is None else reader, words, **settings)  # type: ignore[arg-type]


def test_boxes_lie_where_they_lie_on_the_canvas() -> None:
    recipe = made()
    clip, records = vit_clip(), [Labelled()[index] for index in range(4)]
    shown = [clip.preprocess(each.load(), policy="longest-pad-corner", size=SIDE)[0] for each in records]
    for position in range(4):
        sample = recipe.sample(position)
        record = records[[torch.equal(each, sample.image) for each in shown].index(True)]
        assert record.size is not None
        assert record.boxes is not None
        scale = SIDE / max(record.size)
        assert sample.size.tolist() == [round(side * scale) for side in record.size]
        torch.testing.assert_close(sample.boxes, record.boxes[[0, 2]] * scale, atol=0.6, rtol=0)
        assert sample.labels.tolist() == [0, 1]


def test_no_novel_box_or_label_reaches_the_head() -> None:
    """What is not learned is as if nobody had drawn it: the batch is that of records without it."""

    @dataclass(frozen=True)
    class Undrawn(Labelled):
        def __getitem__(self, index: int) -> Record:
            record = super().__getitem__(index)
            assert record.boxes is not None
            return replace(record, boxes=record.boxes[[0, 2]], masks=None, labels=torch.tensor([0, 2]))

    with_all, without = made(), made(Undrawn())
    batch = with_all.collate([with_all.sample(position) for position in range(4)])
    assert set(batch["labels"].tolist()) <= {0, 1}
    assert len(batch["boxes"]) == 8
    other = without.collate([without.sample(position) for position in range(4)])
    assert all(torch.equal(value, other[name]) for name, value in batch.items())


def test_a_mirrored_picture_has_mirrored_boxes() -> None:
    plain, turned = made(), made(flip=True, seed=0)
    seen = set()
    for position in range(12):
        one, other = plain.sample(position), turned.sample(position)
        width = int(one.size[1])
        if torch.equal(one.image, other.image):
            seen.add("as it is")
            assert torch.equal(one.boxes, other.boxes)
        else:
            seen.add("mirrored")
            expected = torch.stack(
                [width - one.boxes[:, 2], one.boxes[:, 1], width - one.boxes[:, 0], one.boxes[:, 3]], dim=1
            )
            torch.testing.assert_close(other.boxes, expected, atol=1.0, rtol=0)
    assert seen == {"as it is", "mirrored"}


def test_jitter_keeps_boxes_inside_and_depends_on_the_number_alone() -> None:
    recipe = made(jitter=(0.3, 2.0), flip=True)
    state = torch.get_rng_state()
    for position in range(8):
        one, again = recipe.sample(position), recipe.sample(position)
        assert torch.equal(one.image, again.image)
        assert torch.equal(one.boxes, again.boxes)
        assert bool((one.boxes >= 0).all())
        assert bool((one.boxes <= SIDE).all())
        assert len(one.boxes) == len(one.labels)
    assert torch.equal(state, torch.get_rng_state()), "no one else's chance is touched"


def test_a_shrunk_picture_lies_in_the_corner_and_boxes_show_what_they_showed() -> None:
    """Every box and mask of a scaled and cut picture shows the same colour as before."""
    pixels = np.full((60, 90, 3), 20, dtype=np.uint8)
    pixels[10:40, 30:70] = (250, 30, 30)
    picture, box = PIL.Image.fromarray(pixels), torch.tensor([[30.0, 10, 70, 40]])
    for seed in range(12):
        rng = np.random.default_rng(seed)
        factor = float(rng.uniform(0.2, 2.0))
        view = drawn_view(picture.size, SIDE, factor, rng)
        scaled = np.asarray(picture.resize(view.shown, PIL.Image.Resampling.NEAREST, box=view.seen))
        assert max(view.shown) == min(round(factor * SIDE), SIDE)
        x0, y0, x1, y1 = (round(side) for side in view.boxes(box)[0].tolist())
        assert 0 <= x0 <= x1 <= view.shown[0]
        inside = scaled[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2, 0]
        assert inside.size == 0 or inside.min() > 150, (seed, factor)
        (mask,) = view.masks(torch.from_numpy(pixels[None, ..., 0] > 150), SIDE)
        assert mask.shape == (SIDE, SIDE)
        assert not mask[view.shown[1] :].any()
        assert not mask[:, view.shown[0] :].any()
        assert np.array_equal(mask[: view.shown[1], : view.shown[0]].numpy(), scaled[..., 0] > 150)
    assert mirrored(box, 90).tolist() == [[20.0, 10.0, 60.0, 40.0]]
    assert min(drawn_view((900, 10), SIDE, 0.1, np.random.default_rng(0)).shown) == 1


@pytest.mark.parametrize("jitter", [None, (0.5, 1.5)])
def test_masks_lie_in_their_boxes_on_the_canvas(jitter: tuple[float, float] | None) -> None:
    world = World("train", count=6, size=(48, 64))
    words = [place if thing else None for place, thing in enumerate(world.things)]
    recipe = Detection(vit_clip(), nn.Linear(1, 1), world, words, size=SIDE, jitter=jitter, masks=True)
    samples = [recipe.sample(position) for position in range(6)]
    for sample in samples:
        assert sample.masks is not None
        assert sample.masks.shape == (len(sample.boxes), SIDE, SIDE)
        shown = sample.masks.flatten(1).any(dim=1)
        tight, boxes = masks_to_boxes(sample.masks[shown]), sample.boxes[shown]
        # Pixels are cut at whole numbers, boxes are not; and what is left of a cut thing may not fill its cut box.
        assert (tight[:, :2] - boxes[:, :2] >= -1.6).all()
        assert (boxes[:, 2:] - tight[:, 2:] >= -1.6).all()
        assert jitter is not None or ((tight - boxes).abs() <= 1.6).all()
    batch = recipe.collate(samples)
    assert batch["masks"].shape == (len(batch["boxes"]), SIDE, SIDE)
    with pytest.raises(DataError, match="has no masks"):
        made(Bare(), masks=True).sample(0)


@pytest.mark.parametrize(
    ("boxes", "kept"),
    [
        ([[0.0, 0, 20, 30], [float("nan"), 0, 5, 5], [4, 4, 4, 9]], 1),
        ([[0.0, 0, float("inf"), 30], [0, 0, 9, 9], [9, 9, 0, 0]], 0),
    ],
)
def test_boxes_that_are_none_are_left_out(boxes: list[list[float]], kept: int) -> None:
    @dataclass(frozen=True)
    class Odd(Labelled):
        def __getitem__(self, index: int) -> Record:
            return replace(super().__getitem__(index), boxes=torch.tensor(boxes))

    sample = made(Odd()).sample(0)
    assert len(sample.boxes) == kept
    assert bool(sample.boxes.isfinite().all())


@pytest.mark.parametrize("jitter", [None, (1.0, 1.0)])
def test_boxes_are_cut_to_the_picture(jitter: tuple[float, float] | None) -> None:
    @dataclass(frozen=True)
    class Beyond(Labelled):
        def __getitem__(self, index: int) -> Record:
            boxes = torch.tensor([[-30.0, -20, 80, 60], [70, 5, 90, 30], [4, 5, 20, 30]])
            return replace(super().__getitem__(index), boxes=boxes)

    for position in range(4):
        sample = made(Beyond(), (0, 1, 2), jitter=jitter).sample(position)
        height, width = sample.size.tolist()
        assert (sample.boxes >= 0).all()
        assert (sample.boxes <= torch.tensor([width, height, width, height])).all()
        assert sample.boxes[0, :2].tolist() == [0, 0]
        assert sample.boxes[0, 2] == width


def test_unlabelled_pictures_are_no_data() -> None:
    with pytest.raises(DataError, match="no labelled boxes"):
        made(Pictures()).sample(0)
    with pytest.raises(DataError, match="empty"):
        made(Labelled(count=0))


def test_a_data_set_without_boxes_to_learn_from_is_said(tmp_path: Path) -> None:
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 64}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [],
    }
    (tmp_path / "instances.json").write_text(json.dumps(document))
    PIL.Image.new("RGB", (64, 40)).save(tmp_path / "a.png")
    images = f"coco:{tmp_path / 'instances.json'}?images={tmp_path}"
    with pytest.raises(DataError, match=r"None of the first 1 pictures of .* has a box of a word to learn"):
        train_detector(DetectorTraining(images, preset="tiny", training={"workers": 0}), tmp_path / "out", FVIT)
    assert not (tmp_path / "out-run").exists()


def test_words_are_the_things_and_novel_ones_are_marked() -> None:
    world = World("train", count=2)
    words, novel = detector_words(world)
    assert len(words) == sum(world.things)
    assert [word for word, new in zip(words, novel, strict=True) if new] == sorted(world.novel, key=words.index)
    assert detector_words(Labelled(), ("fox",)) == (("cat", "dog", "fox"), (False, False, True))
    with pytest.raises(InputError, match="'fix' is no thing"):
        detector_words(Labelled(), ("fix",))
    with pytest.raises(InputError, match="no things to learn"):
        detector_words(Labelled(), ("cat", "dog", "fox"))


def wanted(**changes: object) -> DetectorTraining:
    training = {"steps": 2, "batch_size": 4, "precision": "fp32", "workers": 0, "save_every": 1}
    settings = {"images": "world?count=8&size=64", "preset": "tiny", "config": {"size": 64}, "head": SMALL}
    return DetectorTraining(**(settings | {"training": training} | changes))  # type: ignore[arg-type]


def state(folder: Path) -> dict[str, Tensor]:
    return load_detector(folder, device="cpu", precision="fp32").head.state_dict()


def test_a_detector_is_trained_saved_and_loaded_as_it_was(tmp_path: Path) -> None:
    kept = []

    def save(detector: object, folder: Path, card: object, **options: object) -> Path:
        kept.append(detector)
        return save_detector(detector, folder, card, **options)  # type: ignore[arg-type]

    train_detector(wanted(), tmp_path / "whole", Maker(new_detector, save))
    (detector,) = kept
    loaded = load_detector(tmp_path / "whole", device="cpu")
    for name, value in detector.head.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(loaded.head.state_dict()[name], value.cpu())
    assert not loaded.head.training
    assert loaded.marks(["Star", "circle", "zebra"]) == [True, False, True]
    train_detector(wanted(), tmp_path / "again", FVIT)
    assert all(torch.equal(value, state(tmp_path / "again")[name]) for name, value in state(tmp_path / "whole").items())


def test_a_head_is_not_saved_over_what_it_stands_on(tmp_path: Path) -> None:
    clip = tmp_path / "clip"
    with pytest.raises(InputError, match="also where it would be saved"):
        train_detector(DetectorTraining("world?count=8&size=64", str(clip)), clip, FVIT)
    below = replace(FVIT, stands_on=tmp_path / "rpn")
    with pytest.raises(InputError, match="The head stands on"):
        train_detector(DetectorTraining("world?count=8&size=64"), tmp_path / "x" / ".." / "rpn", below)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("presets", [PRESETS, RPN_PRESETS, C4_PRESETS])
def test_presets_fit_their_heads(presets: Presets) -> None:
    heads = {id(PRESETS): FVitConfig, id(RPN_PRESETS): RpnConfig, id(C4_PRESETS): C4Config}
    for preset in presets.values():
        config, training, head = preset(100_170)
        heads[id(presets)]().replace(**head)
        assert training.steps > 0
        assert config.size >= 256
    lvis, training, head = PRESETS["paper-lvis"](100_170)
    assert (lvis.size, training.steps) == (1024, 48 * 1566)
    assert FVitConfig().replace(**head).clip_scale == 50


def test_going_on_needs_the_same_words_and_model(tmp_path: Path) -> None:
    train_detector(wanted(), tmp_path / "out", FVIT)
    with pytest.raises(ConfigError, match="begun with the novel"):
        train_detector(wanted(novel=("star",)), tmp_path / "out", FVIT, resume=True)
    with pytest.raises(ConfigError, match="begun with the base"):
        train_detector(wanted(model="tiny-clipself"), tmp_path / "out", FVIT, resume=True)


def test_an_error_of_a_worker_is_the_line_that_it_is(tmp_path: Path) -> None:
    """torch wraps what a worker raises in a traceback; users read one sentence."""

    @dataclass(frozen=True)
    class Lacking(Labelled):
        count: int = 8

        def __getitem__(self, index: int) -> Record:
            record = super().__getitem__(index)
            return replace(record, labels=None) if index else record

    recipe = made(Lacking())
    feed = loader(recipe, ShardedBatches(0, 2, 4), workers=1)
    with pytest.raises(DataError, match=r"^Record '\d' has no labelled boxes"):
        list(feed)


def test_a_head_wants_the_clip_that_it_was_trained_on(tmp_path: Path) -> None:
    train_detector(wanted(), tmp_path / "out", FVIT)
    with pytest.raises(ModelError, match="but those here are"):
        load_detector(tmp_path / "out", clip=load("tiny-clipself", device="cpu"))
    with pytest.raises(ModelError, match="no trained head"):
        load_detector(tmp_path)
    (tmp_path / "out" / "card.json").write_text("{")
    with pytest.raises(ModelError, match="no json"):
        load_detector(tmp_path / "out")
    (tmp_path / "out" / "card.json").write_text("{}")
    with pytest.raises(ModelError, match="has no head, clip, config"):
        load_detector(tmp_path / "out")


def test_settings_out_of_range_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'papr'.*'paper'"):
        train_detector(wanted(preset="papr"), tmp_path / "out", FVIT)
    with pytest.raises(ConfigError, match="`jitter`"):
        DetectionConfig(jitter=(2.0, 1.0))
    with pytest.raises(ConfigError, match="`size`"):
        DetectionConfig(size=0)
    assert not (tmp_path / "out").exists()
