"""Recipe denseclip: pictures and their label maps stay together, whatever is done to them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from closeup._types import IGNORE
from closeup.data.labelmaps import LabelMapFolder
from closeup.data.map_regions import label_map_of
from closeup.data.record import Reader, Record
from closeup.data.world import World
from closeup.errors import ConfigError, DataError
from closeup.models.checkpoint import CARD, HEAD
from closeup.models.clip import Clip
from closeup.recipes.label_maps import LabelMapRecipe, Sample, distorted, label_maps_teach, largest_share
from closeup.recipes.label_maps_config import LABEL_MAP_PRESETS, LabelMapConfig
from closeup.recipes.order import ShardedBatches, loader, visited
from closeup.recipes.run_detection import DetectorTraining, Maker, train_detector
from closeup.recipes.view import drawn_cut
from tiny_clips import vit_clip
from tiny_pictures import Pictures

SIDE = 64
CLASSES = 5
NAMES = ("sky", "road", "tree", "car", "wall")
PLAIN = LabelMapConfig(size=SIDE, flip=False, colours=False, jitter=(1.0, 1.0), max_share=1.0)
GREYS = torch.arange(CLASSES) * 50 + 20
"""The colour of each label, where pictures are painted in their labels."""


@dataclass(frozen=True)
class Maps:
    """A reader of pictures whose colours are their labels, in blocks of 16 pixels of chance."""

    sizes: tuple[tuple[int, int], ...] = ((96, 128), (160, 100), (100, 300))
    ignored: bool = False
    names: tuple[str, ...] = NAMES
    things: tuple[bool, ...] = (False,) * CLASSES

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Record:
        height, width = self.sizes[index]
        coarse = torch.randint(0, CLASSES, (-(-height // 16), -(-width // 16)), generator=generator(index))
        labels = coarse.repeat_interleave(16, dim=0).repeat_interleave(16, dim=1)[:height, :width]
        image = GREYS[labels][..., None].expand(-1, -1, 3).byte().numpy()
        shown = torch.full_like(labels, IGNORE) if self.ignored else labels
        return Record(f"{index}", image, (height, width), label_map=shown)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(
    reader: Reader | None = None, words: Sequence[int | None] = range(CLASSES), **changes: object
) -> LabelMapRecipe:
    config = PLAIN.replace(**changes)
    return LabelMapRecipe(vit_clip(), nn.Linear(1, 1), Maps() if reader is None else reader, words, config=config)


def read_off(sample: Sample) -> Tensor:
    """Return the label that each pixel's colour is nearest to."""
    clip = vit_clip()
    grey = (sample.image[0] * clip.std[0] + clip.mean[0]) * 255
    return (grey[..., None] - GREYS).abs().argmin(dim=-1)


def interior(labels: Tensor) -> Tensor:
    """Return which pixels have the same label three pixels around, where resizing mixes no colours."""
    padded = F.pad(labels[None].float(), (3, 3, 3, 3), value=-9.0)
    return (F.max_pool2d(padded, 7, 1) == -F.max_pool2d(-padded, 7, 1))[0]


@pytest.mark.parametrize("jitter", [(1.0, 1.0), (0.8, 1.2), (0.5, 2.0)])
@pytest.mark.parametrize("flip", [False, True])
def test_pictures_and_labels_stay_together(jitter: tuple[float, float], flip: bool) -> None:
    recipe = made(jitter=jitter, flip=flip, max_share=0.75)
    checked = 0
    for position in range(24):
        sample = recipe.sample(position)
        sure = interior(sample.labels) & (sample.labels != IGNORE)
        checked += int(sure.sum())
        assert torch.equal(read_off(sample)[sure], sample.labels[sure])
    assert checked > 24 * SIDE * SIDE / 6


def test_edges_lie_where_they_lie() -> None:
    """Of two labels the mean colour tells to the pixel where the one ends and the other begins."""

    @dataclass(frozen=True)
    class Halves(Maps):
        def __getitem__(self, index: int) -> Record:
            record = super().__getitem__(index)
            assert record.label_map is not None
            labels = (record.label_map >= 2).long()
            return replace(record, image=GREYS[labels][..., None].expand(-1, -1, 3).byte().numpy(), label_map=labels)

    recipe = made(Halves(), jitter=(0.5, 2.0), flip=True)
    for position in range(24):
        sample = recipe.sample(position)
        shown = sample.labels != IGNORE
        bright = read_off(sample) > 0
        wrong = (bright != sample.labels.bool()) & shown
        assert wrong.sum() <= 0.015 * shown.sum()


def test_labels_are_those_of_the_nearest_pixels() -> None:
    """As pillow resizes masks, label by label, and as a loop over pixels has it."""
    labels = torch.randint(0, CLASSES, (37, 53), generator=generator(0))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        view = drawn_cut((53, 37), float(rng.uniform(0.3, 3.0)), SIDE, rng)
        shown = view.labels(labels)
        masks = view.masks(torch.stack([labels == label for label in range(CLASSES)]), SIDE)
        assert torch.equal(shown, masks[:, : view.shown[1], : view.shown[0]].int().argmax(dim=0))
        left, top, right, bottom = view.seen
        for row in range(0, view.shown[1], 7):
            for col in range(0, view.shown[0], 5):
                y = math.floor(top + (row + 0.5) / view.shown[1] * (bottom - top))
                x = math.floor(left + (col + 0.5) / view.shown[0] * (right - left))
                assert shown[row, col] == labels[y, x]


def test_an_unchanged_picture_is_the_picture() -> None:
    recipe = made(Maps(sizes=((SIDE, SIDE),)))
    record = Maps(sizes=((SIDE, SIDE),))[0]
    sample = recipe.sample(0)
    assert record.label_map is not None
    assert torch.equal(sample.labels, record.label_map)
    assert torch.equal(sample.image, vit_clip().preprocess(record.image, policy="native")[0])


def test_mirrored_half_of_the_time_and_together() -> None:
    reader = Maps(sizes=((SIDE, SIDE),))
    plain, turned = made(reader).sample(0), made(reader, flip=True)
    mirrored = 0
    for position in range(40):
        sample = turned.sample(position)
        if not torch.equal(sample.labels, plain.labels):
            mirrored += 1
            assert torch.equal(sample.labels, plain.labels.flip(1))
            assert torch.equal(sample.image, plain.image.flip(2))
    assert 10 <= mirrored <= 30


@pytest.mark.parametrize(
    ("picture", "factor", "expected"),
    [
        ((96, 128), 0.5, (32, 43)),
        ((96, 128), 1.0, (64, 64)),
        ((40, 200), 0.5, (26, 64)),  # the longest side is 4 x 32, and cut
        ((40, 200), 0.25, (13, 64)),
        ((10, 2000), 1.0, (1, 64)),
        ((1, 1), 2.0, (64, 64)),
    ],
)
def test_the_shortest_side_is_what_the_factor_says(
    picture: tuple[int, int], factor: float, expected: tuple[int, int]
) -> None:
    sample = made(Maps(sizes=(picture,)), jitter=(factor, factor)).sample(0)
    assert tuple(sample.size.tolist()) == expected


def test_the_rest_of_the_canvas_is_the_mean_colour_and_ignored() -> None:
    for position in range(6):
        sample = made(jitter=(0.3, 0.6), flip=True, colours=True).sample(position)
        height, width = sample.size.tolist()
        beside = torch.ones(SIDE, SIDE, dtype=torch.bool)
        beside[:height, :width] = False
        assert beside.any()
        assert not sample.image[:, beside].any()
        assert (sample.labels[beside] == IGNORE).all()
        assert (sample.labels[~beside] != IGNORE).all()
        assert (sample.image != 0).all(dim=0)[~beside].all()


def test_the_cut_is_the_first_in_which_no_class_has_more_than_its_share() -> None:
    """As the plain loop finds it: resize everything, cut it, count."""

    @dataclass(frozen=True)
    class Lopsided(Maps):
        def __getitem__(self, index: int) -> Record:
            record = super().__getitem__(index)
            assert record.label_map is not None
            labels = record.label_map.clone()
            labels[:, : int(labels.shape[1] * 0.7)] = 1
            labels[:20] = IGNORE
            return replace(record, label_map=labels)

    reader = Lopsided(sizes=((192, 256),) * 4)
    recipe, shares = made(reader, max_share=0.6, jitter=(0.9, 2.5)), []
    for position in range(30):
        record = reader[visited(position, len(reader), 0)]
        assert record.label_map is not None
        rng = np.random.default_rng([0, 6, position])
        factor = rng.uniform(0.9, 2.5)
        width, height = round(256 * factor * SIDE / 192), round(192 * factor * SIDE / 192)
        scaled = np.asarray(PIL.Image.fromarray(record.label_map.int().numpy()).resize((width, height), 0))
        for _ in range(10):
            left, top = int(rng.integers(max(width - SIDE, 0) + 1)), int(rng.integers(max(height - SIDE, 0) + 1))
            cut = scaled[top : top + SIDE, left : left + SIDE]
            counts = np.unique(cut[cut >= 0], return_counts=True)[1]
            if counts.size and counts.max() <= 0.6 * counts.sum():
                break
        shown = recipe.sample(position).labels[: cut.shape[0], : cut.shape[1]]
        # Whole and cut pictures round alike but for ties.
        assert (shown.numpy() == cut).mean() > 0.95
        shares.append(largest_share(shown))
    free = [largest_share(made(reader, max_share=1.0, jitter=(0.9, 2.5)).sample(each).labels) for each in range(30)]
    assert sum(share > 0.6 for share in shares) < sum(share > 0.6 for share in free)


def test_the_largest_share_leaves_out_what_is_ignored() -> None:
    assert largest_share(torch.tensor([[-1, -1, -1], [0, 3, 3], [3, -1, -1]])) == pytest.approx(0.75)
    assert largest_share(torch.full((2, 2), IGNORE)) == 0


def test_words_are_those_of_the_head() -> None:
    order: list[int | None] = [3, None, 0, 1, 2]
    plain, renamed = made(), made(words=order)
    for position in range(3):
        before, after = plain.sample(position).labels, renamed.sample(position).labels
        for row in range(0, SIDE, 3):
            for col in range(0, SIDE, 3):
                label = int(before[row, col])
                word = None if label == IGNORE else order[label]
                assert after[row, col] == (IGNORE if word is None else word)


def test_a_sample_is_a_function_of_its_number_alone() -> None:
    one, other = (made(jitter=(0.5, 2.0), flip=True, colours=True, max_share=0.75) for _ in range(2))
    state = torch.get_rng_state()
    forwards = [one.sample(position) for position in range(6)]
    torch.rand(7)
    torch.set_rng_state(state)
    backwards = [other.sample(position) for position in reversed(range(6))][::-1]
    for first, second in zip(forwards, backwards, strict=True):
        assert torch.equal(first.image, second.image)
        assert torch.equal(first.labels, second.labels)
    assert torch.equal(state, torch.get_rng_state()), "no one else's chance is touched"
    again = LabelMapRecipe(vit_clip(), nn.Linear(1, 1), Maps(), range(CLASSES), config=one._config, seed=1)
    assert any(not torch.equal(again.sample(each).image, forwards[each].image) for each in range(6))


def test_colours_change_and_labels_do_not() -> None:
    plain, coloured = made(jitter=(0.5, 2.0)), made(jitter=(0.5, 2.0), colours=True)
    changed = 0
    for position in range(12):
        one, other = plain.sample(position), coloured.sample(position)
        assert torch.equal(one.labels, other.labels)
        changed += not torch.equal(one.image, other.image)
    assert changed > 6


def test_channels_stay_in_their_places() -> None:
    """Changes within torchvision's own ranges, but red stays red."""
    red = PIL.Image.new("RGB", (8, 8), (200, 40, 30))
    seen = {distorted(red, seed).getpixel((0, 0)) for seed in range(60)}
    assert len(seen) > 30
    assert all(colour[0] == max(colour) for colour in seen if isinstance(colour, tuple))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = {v2.RandomPhotometricDistort()(red).getpixel((0, 0)) for _ in range(60)}
    assert any(colour[0] != max(colour) for colour in theirs)


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    low=st.floats(0.02, 3.0),
    position=st.integers(0, 1000),
    ignored=st.booleans(),
)
def test_any_picture_fits_its_canvas(height: int, width: int, low: float, position: int, ignored: bool) -> None:
    reader = Maps(sizes=((height, width),), ignored=ignored)
    recipe = made(reader, jitter=(low, low * 2), flip=True, colours=True, max_share=0.5)
    batch = recipe.collate([recipe.sample(position)])
    assert batch["images"].shape == (1, 3, SIDE, SIDE)
    assert batch["labels"].shape == (1, SIDE, SIDE)
    assert batch["images"].isfinite().all()
    assert batch["labels"].dtype == batch["sizes"].dtype == torch.int64
    ((rows, cols),) = batch["sizes"].tolist()
    assert 1 <= rows <= SIDE
    assert 1 <= cols <= SIDE
    assert bool((batch["labels"] == IGNORE).all()) is ignored
    assert recipe.teaches(recipe.sample(position)) is not ignored


def test_masks_are_painted_where_there_is_no_label_map() -> None:
    masks = torch.zeros(3, 6, 8, dtype=torch.bool)
    masks[0, 1:3, 1:3], masks[1, 0:5, 0:6], masks[2, 2:5, 2:5] = True, True, True
    record = Record("a", np.zeros((6, 8, 3), np.uint8), (6, 8), masks=masks, labels=torch.tensor([2, 0, 4]))
    painted = label_map_of(record)
    for row in range(6):
        for col in range(8):
            here = [
                (int(mask.sum()), int(label)) for mask, label in zip(masks, (2, 0, 4), strict=True) if mask[row, col]
            ]
            assert painted[row, col] == (min(here)[1] if here else IGNORE)
    given_map = torch.zeros(6, 8, dtype=torch.long)
    assert label_map_of(replace(record, label_map=given_map)) is given_map
    empty = replace(record, masks=masks[:0], labels=torch.zeros(0, dtype=torch.long))
    assert (label_map_of(empty) == IGNORE).all()
    with pytest.raises(DataError, match="no label map and no labelled masks"):
        made(Pictures()).sample(0)
    with pytest.raises(DataError, match="The data set is empty"):
        made(Pictures(count=0))


def test_the_world_is_painted_as_it_is_drawn() -> None:
    """What its masks say of things, its label maps say too, but where grounds are."""
    world = World("train", count=4, size=(48, 64))
    for record in (world[index] for index in range(4)):
        assert record.label_map is not None
        painted = label_map_of(replace(record, label_map=None))
        covered = painted != IGNORE
        assert (painted[covered] == record.label_map[covered]).float().mean() > 0.9


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_an_id_without_a_class_is_one_line(workers: int, tmp_path: Path) -> None:
    for name, value in (("a", 0), ("b", 7)):
        for folder, picture in (
            ("images", PIL.Image.new("RGB", (8, 8))),
            ("labels", PIL.Image.fromarray(np.full((8, 8), value, np.uint8))),
        ):
            (tmp_path / folder).mkdir(exist_ok=True)
            picture.save(tmp_path / folder / f"{name}.png")
    recipe = made(LabelMapFolder(tmp_path / "images", tmp_path / "labels", NAMES))
    with pytest.raises(
        DataError, match=r"^\S*b\.png: holds the ids \[7\], which are neither classes \(0 to 4\)[^\n]*$"
    ):
        list(loader(recipe, ShardedBatches(0, 2, 4), workers=workers))


@pytest.mark.parametrize("label", [CLASSES, -2])
def test_a_label_without_a_name_is_said(label: int) -> None:
    @dataclass(frozen=True)
    class Strange(Maps):
        def __getitem__(self, index: int) -> Record:
            record = super().__getitem__(index)
            assert record.label_map is not None
            return replace(record, label_map=record.label_map.where(record.label_map != 1, torch.tensor(label)))

    with pytest.raises(DataError, match=f"has the label {label}, but there are 5 names"):
        made(Strange()).sample(0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": 0}, "`size`"),
        ({"jitter": (2.0, 1.0)}, "`jitter`"),
        ({"jitter": (0.0, 1.0)}, "`jitter`"),
        ({"jitter": (1.0,)}, "jitter needs 2 values"),
        ({"max_share": 0.0}, "`max_share`"),
        ({"max_share": 1.1}, "`max_share`"),
        ({"flips": True}, "no key 'flips'"),
    ],
)
def test_settings_out_of_range_are_said(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PLAIN.replace(**changes)


def test_presets_are_the_papers() -> None:
    seen, training, _ = LABEL_MAP_PRESETS["paper-resnet"](20_210)
    assert seen == LabelMapConfig(
        size=512, templates="simple", jitter=(0.5, 2.0), flip=True, colours=True, max_share=0.75
    )
    assert (training.steps, training.batch_size, training.rate, training.weight_decay) == (80_000, 32, 1e-4, 1e-4)
    assert (training.warmup, training.decay, training.clip_norm) == (1500, "polynomial", None)
    assert training.rate * training.final_rate == pytest.approx(1e-6)
    large, same, _ = LABEL_MAP_PRESETS["paper-vit"](20_210)
    assert large == seen.replace(size=640)
    assert same == training
    assert LABEL_MAP_PRESETS["tiny"](1001)[1].steps == 4 * 126


class Pixels(nn.Module):
    """Two convolutions and the cross-entropy of pixels, beside what stays as it is."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.tower, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, words, 1)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        scores = self.last(self.tower(batch["images"]).relu())
        return {"loss": F.cross_entropy(scores, batch["labels"], ignore_index=IGNORE)}


@dataclass(frozen=True)
class Plain:
    """A head of pixels."""

    head: nn.Module
    eyes: Clip
    needs: Mapping[str, str] = field(default_factory=dict)
    outlines: bool = False
    paces: Mapping[str, float] = field(default_factory=lambda: {"tower.": 0.1})


def new_plain(
    clip: Clip, words: Sequence[str], novel: Sequence[bool], *, templates: str, size: int, config: Mapping[str, Any]
) -> Plain:
    return Plain(Pixels(len(words)), clip)


def save_plain(made: Plain, folder: Path, card: Mapping[str, Any], *, dtype: str) -> Path:
    folder.mkdir()
    save_file(made.head.state_dict(), folder / HEAD)
    (folder / CARD).write_text(json.dumps(card))
    return folder


MAKER = Maker(new_plain, save_plain, LABEL_MAP_PRESETS, grounds=True, recipe=label_maps_teach)


def test_parameters_that_ask_for_gradients_learn_each_at_its_pace() -> None:
    recipe = LabelMapRecipe(vit_clip(), Pixels(5), Maps(), range(5), config=PLAIN, paces={"tower.": 0.1})
    named = recipe.trainable()
    assert set(named) == {"tower.weight", "tower.bias", "last.weight", "last.bias"}
    assert {name: (recipe.pace(name), recipe.decays(name, value)) for name, value in named.items()} == {
        "tower.weight": (0.1, True),
        "tower.bias": (0.1, False),
        "last.weight": (1.0, True),
        "last.bias": (1.0, False),
    }


def wanted(**changes: object) -> DetectorTraining:
    training = {"steps": 6, "batch_size": 4, "precision": "fp32", "workers": 0, "save_every": 3}
    asked = {"images": "world?count=8&size=64", "preset": "tiny", "config": {"size": 32}, "training": training}
    return DetectorTraining(**(asked | changes))  # type: ignore[arg-type]


def test_a_head_is_trained_on_label_maps_and_saved(tmp_path: Path) -> None:
    trained = train_detector(wanted(), tmp_path / "out", MAKER)
    card = json.loads((trained.folder / CARD).read_text())["trained"]
    assert card["recipe"] == "denseclip"
    assert card["config"]["jitter"] == [0.75, 1.5]
    assert card["training"]["decay"] == "polynomial"
    assert trained.figures["loss"] < math.log(len(World.names)) + 1
    again = train_detector(wanted(), tmp_path / "again", MAKER)
    one, two = (load_file(each.folder / HEAD) for each in (trained, again))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    with pytest.raises(ConfigError, match="begun with the config"):
        train_detector(wanted(config={"size": 48}), tmp_path / "out", MAKER, resume=True)


def test_a_data_set_without_a_pixel_to_learn_from_is_said(tmp_path: Path) -> None:
    for folder, picture in (("images", PIL.Image.new("RGB", (8, 8))), ("labels", PIL.Image.new("L", (8, 8), 255))):
        (tmp_path / folder).mkdir()
        picture.save(tmp_path / folder / "a.png")
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    with pytest.raises(DataError, match=r"None of the first 1 pictures of .* has a labelled pixel of a word to learn"):
        train_detector(wanted(images=f"labelmaps:{tmp_path}"), tmp_path / "out", MAKER)
    assert not (tmp_path / "out-run").exists()
