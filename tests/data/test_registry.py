from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest

from closeup.data.record import Reader
from closeup.data.registry import KINDS, open_reader
from closeup.data.spec import Spec, split_spec
from closeup.errors import DataError, InputError
from goldens import SHARED

DATA = SHARED / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA}")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("coco:/data/coco", ("coco", "/data/coco", {})),
        ("coco:data?split=train&crowd=keep", ("coco", "data", {"split": "train", "crowd": "keep"})),
        ("photos/x", ("", "photos/x", {})),
        ("./a:b", ("", "./a:b", {})),
        ("C:\\photos", ("", "C:\\photos", {})),
        ("folder:img?.jpg", ("folder", "img?.jpg", {})),
        ("img?.jpg", ("", "img?.jpg", {})),
        ("world?size=64", ("", "world", {"size": "64"})),
    ],
)
def test_a_line_is_kind_path_and_options(text: str, parts: tuple[str, str, dict[str, str]]) -> None:
    assert split_spec(text) == parts


@pytest.mark.parametrize("text", ["coco:x?crowd", "coco:x?crowd=", "coco:x?a=1&a=2"])
def test_wrong_options_are_named(text: str) -> None:
    with pytest.raises(InputError, match="is not an option"):
        split_spec(text)


def test_unknown_kinds_options_and_values_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Unknown kind of data set 'cocoa'.*Did you mean 'coco'"):
        open_reader("cocoa:/data")
    with pytest.raises(InputError, match=r"Unknown option 'crowds'.*Did you mean 'crowd'"):
        open_reader("coco:/data?crowds=keep")
    with pytest.raises(InputError, match="crowd='all' in a data set of kind coco"):
        Spec("coco", str(tmp_path), options={"crowd": "all"}).choice("crowd", ("skip", "keep"))
    with pytest.raises(InputError, match="is not a whole number"):
        Spec("labelmaps", ".", options={"offset": "one"}).number("offset", 0)


@pytest.mark.parametrize(
    "kind", ["coco", "coco-panoptic", "coco-captions", "lvis", "ade20k", "camvid", "labelmaps", "pairs"]
)
def test_missing_files_show_the_layout(kind: str, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError) as caught:
            open_reader(f"{kind}:{place}")
        assert KINDS[kind].layout in str(caught.value)


def test_a_bare_path_is_a_folder_of_images(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (4, 3)).save(tmp_path / "x.png")
    (tmp_path / "x.txt").write_text("A cat.")
    (tmp_path / "all.tsv").write_text("x\tA dog.")
    assert open_reader(str(tmp_path))[0].id == "x.png"
    assert open_reader(str(tmp_path / "?.png"))[0].id == "x.png"
    assert open_reader(f"folder:{tmp_path}?captions=sidecar")[0].captions == ("A cat.",)
    assert open_reader(f"folder:{tmp_path}?captions=all.tsv")[0].captions == ("A dog.",)


@needs_data
@pytest.mark.parametrize(
    ("spec", "count", "names"),
    [
        (f"camvid:{DATA}/camvid?split=test", 233, 11),
        (f"ade20k:{DATA}/ade20k_sample/sampleData", 3, 150),
        (f"lvis:{DATA}/lvis_sample/lvis_val_100.json?images=none", 100, 1230),
        (
            f"coco-panoptic:{DATA}/coco_panoptic_sample/sample_data"
            "?annotations=panoptic_examples.json&masks=panoptic_examples&images=input_images",
            2,
            133,
        ),
        (f"coco-panoptic:{DATA}/coco_panoptic_sample/sample_data/panoptic_examples.json?images=input_images", 2, 133),
        (
            f"coco:{DATA}/coco_panoptic_sample/sample_data/panoptic_coco_detection_format.json"
            "?images=input_images&crowd=keep&masks=no",
            2,
            133,
        ),
        (f"folder:{DATA}/camvid/images/val", 101, 0),
    ],
)
def test_real_data_opens_from_one_line(spec: str, count: int, names: int) -> None:
    reader = open_reader(spec)
    assert isinstance(reader, Reader)
    assert len(reader) == count
    assert len(reader.names) == len(reader.things) == names
    record = reader[0]
    if "images=none" not in spec:
        record.load()


@needs_data
def test_the_split_argument_wins() -> None:
    assert len(open_reader(f"camvid:{DATA}/camvid?split=test", "train")) == 367
    assert len(open_reader(f"camvid:{DATA}/camvid")) == 101


def test_the_official_coco_folders_are_found(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    PIL.Image.new("RGB", (4, 3)).save(tmp_path / "val2017" / "000000000009.jpg")
    image = '{"id": 9, "file_name": "000000000009.jpg", "height": 3, "width": 4}'
    rows = '{"id": 1, "image_id": 9, "category_id": 1, "bbox": [0, 0, 2, 2], "caption": "A dog."}'
    text = f'{{"images": [{image}], "annotations": [{rows}], "categories": [{{"id": 1, "name": "dog"}}]}}'
    for stem in ("instances", "captions"):
        (tmp_path / "annotations" / f"{stem}_val2017.json").write_text(text)
    record = open_reader(f"coco:{tmp_path}?captions=annotations/captions_val2017.json")[0]
    assert record.captions == ("A dog.",)
    assert record.load().size == (4, 3)
    assert open_reader(f"coco:{tmp_path}/annotations/instances_val2017.json")[0].count == 1
    assert open_reader(f"coco-captions:{tmp_path}")[0].captions == ("A dog.",)
