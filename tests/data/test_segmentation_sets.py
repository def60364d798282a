from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from scipy.io import savemat

from closeup._types import IGNORE
from closeup.data.ade20k_full import stored_ids
from closeup.data.class_lists import class_names
from closeup.data.labelmaps import LabelMaps
from closeup.data.record import Reader
from closeup.data.registry import open_reader
from closeup.errors import DataError, InputError

CITYSCAPES_IDS = {
    **{7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light"},
    **{20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car"},
    **{27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle"},
}
COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}


def drawn(choices: list[int], seed: int = 0) -> np.ndarray:
    """Return a map of stored ids, eight pixels wide, in which every choice occurs."""
    rows = -(-len(choices) // 8)
    return np.random.default_rng(seed).permutation(np.resize(choices, rows * 8)).reshape(rows, 8)


def as_png(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(ids.astype(np.uint8 if ids.max() < 256 else np.uint16)).save(path)


def as_palette(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = PIL.Image.fromarray(ids.astype(np.uint8)).convert("P")
    picture.putpalette([value * 37 % 256 for value in range(768)])
    picture.putdata(ids.flatten().tolist())
    picture.save(path)


def as_matlab(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"LabelMap": ids.astype(np.uint16)}, do_compression=True)


def as_colours(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    instances = np.arange(ids.size).reshape(ids.shape) % 256
    PIL.Image.fromarray(np.stack([ids // 256 * 10 + 3, ids % 256, instances], axis=2).astype(np.uint8)).save(path)


def photo(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (ids.shape[1], ids.shape[0])).save(path)


def listing(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def check(reader: Reader, maps: Mapping[str, np.ndarray], name_of: Mapping[int, str]) -> None:
    """Hold that the records have these ids, and at every pixel the name of what is stored there."""
    assert isinstance(reader, LabelMaps)
    assert [reader[index].id for index in range(len(reader))] == list(maps)
    for index, ids in enumerate(maps.values()):
        record = reader[index]
        record.load()
        assert record.label_map is not None
        assert record.size == ids.shape
        found = [["" if label == IGNORE else reader.names[label] for label in row] for row in record.label_map.tolist()]
        assert found == [[name_of.get(int(stored), "") for stored in row] for row in ids]


def voc_folder(root: Path) -> dict[str, np.ndarray]:
    maps = {"2007_000033": drawn([*range(21), 255]), "2009_000001": drawn([*range(21), 255], seed=1)}
    for name, ids in maps.items():
        photo(root / "JPEGImages" / f"{name}.jpg", ids)
        as_palette(root / "SegmentationClass" / f"{name}.png", ids)
    photo(root / "JPEGImages" / "2010_000001.jpg", ids)  # the kit holds many that are not segmented
    listing(root / "ImageSets" / "Segmentation" / "val.txt", *maps)
    listing(root / "ImageSets" / "Segmentation" / "train.txt", "2009_000001")
    return maps


def test_voc(tmp_path: Path) -> None:
    maps = voc_folder(tmp_path / "VOCdevkit" / "VOC2012")
    name_of = dict(enumerate(class_names("voc-20"), start=1))
    for root in (tmp_path, tmp_path / "VOCdevkit", tmp_path / "VOCdevkit" / "VOC2012"):
        reader = open_reader(f"voc:{root}")
        check(reader, maps, name_of)
        assert reader.things == (True,) * 20
    assert open_reader(f"voc:{tmp_path}", "train")[0].id == "2009_000001"
    whole = open_reader(f"voc:{tmp_path}?background=class")
    check(whole, maps, name_of | {0: "background"})
    assert (len(whole.names), whole.names[0], whole.things.count(True)) == (21, "background", 20)


def test_voc_files_that_are_wrong(tmp_path: Path) -> None:
    root = tmp_path / "VOC2012"
    voc_folder(root)
    with pytest.raises(DataError, match=r"test\.txt\. There are train, val\. Expected: ImageSets/Segmentation/val"):
        open_reader(f"voc:{tmp_path}", "test")
    with pytest.raises(InputError, match="background='yes' in a data set of kind voc"):
        open_reader(f"voc:{tmp_path}?background=yes")
    as_palette(root / "SegmentationClass" / "2007_000033.png", np.full((2, 2), 21))
    with pytest.raises(DataError, match=r"2007_000033\.png: holds the ids \[21\].*classes \(1 to 20\).*\[0, 255\]"):
        open_reader(f"voc:{tmp_path}")[0]
    (root / "SegmentationClass" / "2009_000001.png").unlink()
    with pytest.raises(DataError, match=r"2009_000001\.png: no such file; 1 of 4 are missing\. Expected: ImageSets"):
        open_reader(f"voc:{tmp_path}")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"val\.txt: lists no pictures"):
        open_reader(f"voc:{tmp_path}")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"val\.txt: a list of pictures is UTF-8 text"):
        open_reader(f"voc:{tmp_path}")


def context_folder(root: Path) -> dict[str, np.ndarray]:
    maps = {"2008_000002": drawn([*range(460)]), "2010_006086": drawn([*range(460)], seed=1)}
    for name, ids in maps.items():
        photo(root / "JPEGImages" / f"{name}.jpg", ids)
        as_matlab(root / "trainval" / f"{name}.mat", ids)
    listing(root / "ImageSets" / "Main" / "val.txt", *maps)
    return maps


def test_pascal_context_as_it_is_annotated(tmp_path: Path) -> None:
    maps = context_folder(tmp_path / "VOC2010")
    everything = dict(enumerate(class_names("pascal-context-459"), start=1))
    frequent = {stored: name for stored, name in everything.items() if name in class_names("pascal-context-59")}
    check(open_reader(f"pascal-context:{tmp_path}?classes=459"), maps, everything)
    check(open_reader(f"pascal-context:{tmp_path}"), maps, frequent)
    whole = open_reader(f"pascal-context:{tmp_path}/VOC2010?classes=60")
    check(whole, maps, {stored: frequent.get(stored, "background") for stored in range(460)})
    assert (len(whole.names), whole.names[:2]) == (60, ("background", "aeroplane"))


def test_pascal_context_as_it_is_prepared(tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2010"
    maps = {"2008_000002": drawn([*range(60)])}
    photo(root / "JPEGImages" / "2008_000002.jpg", maps["2008_000002"])
    as_png(root / "SegmentationClassContext" / "2008_000002.png", maps["2008_000002"])
    listing(root / "ImageSets" / "SegmentationContext" / "val.txt", "2008_000002")
    name_of = dict(enumerate(class_names("pascal-context-59"), start=1))
    check(open_reader(f"pascal-context:{tmp_path}?classes=59"), maps, name_of)
    check(open_reader(f"pascal-context:{tmp_path}?classes=60"), maps, name_of | {0: "background"})
    with pytest.raises(DataError, match=r"trainval: no such folder, and only it has all 459 classes\. Expected:"):
        open_reader(f"pascal-context:{tmp_path}?classes=459")
    with pytest.raises(InputError, match="classes='58' in a data set of kind pascal-context"):
        open_reader(f"pascal-context:{tmp_path}?classes=58")


def test_annotations_of_pascal_context_that_are_wrong(tmp_path: Path) -> None:
    context_folder(tmp_path)
    path = tmp_path / "trainval" / "2008_000002.mat"
    reader = open_reader(f"pascal-context:{tmp_path}")
    savemat(path, {"Other": np.zeros((2, 2)), "Names": "x"})
    with pytest.raises(DataError, match=r"002\.mat: no map of whole numbers 'LabelMap'; the file holds Other, Names"):
        reader[0]
    savemat(path, {"LabelMap": np.full((2, 2), 0.5)})
    with pytest.raises(DataError, match="no map of whole numbers"):
        reader[0]
    as_matlab(path, np.full((2, 2), 460))
    with pytest.raises(DataError, match=r"holds the ids \[460\]"):
        reader[0]
    for broken in (b"", b"nothing", path.read_bytes()[:150]):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"002\.mat: not a MATLAB file that can be read"):
            reader[0]


def coco_stuff_folder(root: Path, images: str, labels: str) -> tuple[dict[str, np.ndarray], dict[int, str]]:
    categories = [category for category in range(1, 183) if category not in COCO_GAPS]
    maps = {"000000000139": drawn([*(category - 1 for category in categories), 255])}
    photo(root / images / "000000000139.jpg", maps["000000000139"])
    as_png(root / labels / "000000000139.png", maps["000000000139"])
    name_of = {category - 1: name for category, name in zip(categories, class_names("coco-stuff-171"), strict=True)}
    return maps, name_of


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("val2017", "stuffthingmaps/val2017"),
        ("val2017", "stuffthingmaps_trainval2017/val2017"),
        ("images/val2017", "annotations/val2017"),
    ],
)
def test_coco_stuff(tmp_path: Path, images: str, labels: str) -> None:
    maps, name_of = coco_stuff_folder(tmp_path, images, labels)
    as_png(tmp_path / labels / "000000000139_labelTrainIds.png", maps["000000000139"])  # as mmsegmentation adds
    reader = open_reader(f"coco-stuff:{tmp_path}")
    check(reader, maps, name_of)
    assert (reader.things.count(True), reader.things[:80]) == (80, (True,) * 80)
    as_png(tmp_path / labels / "000000000139.png", np.array([[0, 11]]))
    with pytest.raises(DataError, match=r"holds the ids \[11\].*classes \(0 to 181, with gaps\).*ignored \(\[255\]\)"):
        reader[0]


def test_coco_stuff_without_its_label_maps(tmp_path: Path) -> None:
    coco_stuff_folder(tmp_path, "val2017", "labels")
    with pytest.raises(DataError, match=r"No folder of COCO-Stuff label maps: looked for .*stuffthingmaps/val2017"):
        open_reader(f"coco-stuff:{tmp_path}")


@pytest.mark.parametrize("suffix", ["_gtFine_labelIds", "_gtFine_labelTrainIds"])
def test_cityscapes(tmp_path: Path, suffix: str) -> None:
    own = suffix.endswith("labelIds")
    name_of = CITYSCAPES_IDS if own else dict(enumerate(class_names("cityscapes-19")))
    choices = [*range(34)] if own else [*range(19), 255]
    maps = {}
    for number, city in enumerate(("frankfurt", "munster")):
        stem = f"{city}/{city}_000000_{number:06d}"
        maps[stem] = drawn(choices, seed=number)
        photo(tmp_path / "leftImg8bit" / "val" / f"{stem}_leftImg8bit.png", maps[stem])
        as_png(tmp_path / "gtFine" / "val" / f"{stem}{suffix}.png", maps[stem])
        photo(tmp_path / "gtFine" / "val" / f"{stem}_gtFine_color.png", maps[stem])
    reader = open_reader(f"cityscapes:{tmp_path}")
    check(reader, maps, name_of)
    things = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
    assert tuple(name for name, thing in zip(reader.names, reader.things, strict=True) if thing) == things
    as_png(tmp_path / "gtFine" / "val" / f"{stem}{suffix}.png", np.array([[40, 1]]))
    with pytest.raises(DataError, match=r"holds the ids \[40\]"):
        reader[1]
    (tmp_path / "gtFine" / "val" / f"{stem}{suffix}.png").unlink()
    with pytest.raises(DataError, match=r"1 of 4 are missing\. Expected: leftImg8bit/val/CITY"):
        open_reader(f"cityscapes:{tmp_path}")


def test_cityscapes_without_photographs(tmp_path: Path) -> None:
    for folder in ("leftImg8bit", "gtFine"):
        (tmp_path / folder / "val").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no photographs of any city\. Expected: leftImg8bit"):
        open_reader(f"cityscapes:{tmp_path}")


def test_the_full_ade20k_as_it_is_prepared(tmp_path: Path) -> None:
    maps = {"ADE_val_00000001": drawn([*range(847), 65535])}
    photo(tmp_path / "images_detectron2" / "validation" / "ADE_val_00000001.jpg", maps["ADE_val_00000001"])
    as_png(tmp_path / "annotations_detectron2" / "validation" / "ADE_val_00000001.tif", maps["ADE_val_00000001"])
    reader = open_reader(f"ade20k-847:{tmp_path}")
    check(reader, maps, dict(enumerate(class_names("ade20k-847"))))
    as_png(tmp_path / "annotations_detectron2" / "validation" / "ADE_val_00000001.tif", np.array([[847, 0]]))
    with pytest.raises(DataError, match=r"holds the ids \[847\].*classes \(0 to 846\).*ignored \(\[65535\]\)"):
        reader[0]


def test_the_full_ade20k_as_it_is_released(tmp_path: Path) -> None:
    name_of = dict(zip(stored_ids(), class_names("ade20k-847"), strict=True))
    folder = tmp_path / "images" / "ADE" / "training"
    maps = {
        "urban/street/ADE_train_00000002": drawn([*range(0, 3688)]),
        "work_place/office/ADE_train_00000010": drawn([*range(0, 3688)], seed=1),
    }
    for stem, ids in maps.items():
        photo(folder / f"{stem}.jpg", ids)
        as_colours(folder / f"{stem}_seg.png", ids)
        photo(folder / f"{stem}_parts_1.png", ids)
        photo(folder / stem / "instance_000_ADE.png", ids)
    check(open_reader(f"ade20k-847:{tmp_path}", "train"), maps, name_of)
    PIL.Image.new("L", (2, 2)).save(folder / f"{stem}_seg.png")
    with pytest.raises(DataError, match=r"_seg\.png is RGB, not of PIL mode L"):
        open_reader(f"ade20k-847:{tmp_path}", "train")[1]
    (folder / f"{stem}_seg.png").write_bytes(b"")
    with pytest.raises(DataError, match="the label map cannot be read"):
        open_reader(f"ade20k-847:{tmp_path}", "train")[1]
    (folder / f"{stem}_seg.png").unlink()
    with pytest.raises(DataError, match=r"1 of 4 are missing\. Expected: images_detectron2"):
        open_reader(f"ade20k-847:{tmp_path}", "train")


def test_any_label_maps_in_the_classes_of_a_set(tmp_path: Path) -> None:
    maps = {"2008_000002": drawn([*range(459), 65535])}
    photo(tmp_path / "images" / "2008_000002.jpg", maps["2008_000002"])
    as_png(tmp_path / "annotations_ctx459" / "2008_000002.tif", maps["2008_000002"])
    reader = open_reader(f"labelmaps:{tmp_path}?labels=annotations_ctx459&names=pascal-context-459")
    check(reader, maps, dict(enumerate(class_names("pascal-context-459"))))
