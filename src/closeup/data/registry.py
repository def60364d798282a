"""Kinds of data sets by name: one entry each, and `open_reader` that opens any of them from a line of text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from closeup.data.ade20k import LAYOUT as ADE20K_LAYOUT
from closeup.data.ade20k import open_ade20k
from closeup.data.ade20k_full import LAYOUT as ADE20K_FULL_LAYOUT
from closeup.data.ade20k_full import open_ade20k_full
from closeup.data.camvid import LAYOUT as CAMVID_LAYOUT
from closeup.data.camvid import open_camvid
from closeup.data.captions import Captioned
from closeup.data.cityscapes import LAYOUT as CITYSCAPES_LAYOUT
from closeup.data.cityscapes import open_cityscapes
from closeup.data.class_lists import CLASS_LISTS, class_names
from closeup.data.coco import CocoCaptions, CocoInstances, Crowd
from closeup.data.coco_panoptic import CocoPanoptic
from closeup.data.coco_pictures import folders_beside
from closeup.data.coco_stuff import LAYOUT as COCO_STUFF_LAYOUT
from closeup.data.coco_stuff import open_coco_stuff
from closeup.data.fgovd import BENCHMARKS, FgOvd
from closeup.data.fgovd import LAYOUT as FGOVD_LAYOUT
from closeup.data.folder import ImageFolder
from closeup.data.karpathy import LAYOUT as KARPATHY_LAYOUT
from closeup.data.karpathy import Karpathy, Restval
from closeup.data.labelmaps import LabelMapFolder, unlabelled_id
from closeup.data.lvis import Lvis
from closeup.data.pairs import LAYOUT as PAIRS_LAYOUT
from closeup.data.pairs import PairFolder
from closeup.data.pascal_context import LAYOUT as PASCAL_CONTEXT_LAYOUT
from closeup.data.pascal_context import Classes, open_pascal_context
from closeup.data.record import Reader
from closeup.data.spec import DEFAULT_SPLIT, Spec, split_spec
from closeup.data.voc import LAYOUT as VOC_LAYOUT
from closeup.data.voc import Background, open_voc
from closeup.data.world.fine_grained import FineGrainedWorld
from closeup.data.world.world import Marked, World
from closeup.errors import DataError, InputError, suggest


@dataclass(frozen=True)
class Kind:
    """How one kind of data set is opened, the files it expects, and the options its line may carry."""

    open: Callable[[Spec], Reader]
    layout: str
    options: tuple[str, ...] = ()


def open_reader(spec: str, split: str | None = None) -> Reader:
    """Open the data set that a line such as ``coco-panoptic:/data/coco`` names.

    The form is ``kind:path?option=value&option=value``; the kinds are the keys of `KINDS`, whose entries say which
    files and options they take. A bare path is a folder of images. ``split`` (train, val, test) may also be an
    option of the line; the argument wins, and val is the default.

    Raises:
        InputError: the line is empty, or the kind or an option is unknown.
        DataError: files are missing (the message shows the expected layout) or do not hold what they should.
    """
    if not spec.strip():
        raise InputError(f"The data set has an empty name ({spec!r}). {suggest(spec, KINDS)}")
    kind, path, options = split_spec(spec)
    if not kind:
        kind, path = (path, "") if path in KINDS and not Path(path).exists() else ("folder", path)
    if kind not in KINDS:
        raise InputError(f"Unknown kind of data set {kind!r} in {spec!r}. {suggest(kind, KINDS)}")
    entry = KINDS[kind]
    unknown = [name for name in options if name not in (*entry.options, "split")]
    if unknown:
        choices = (*entry.options, "split")
        raise InputError(f"Unknown option {unknown[0]!r} in {spec!r}. {suggest(unknown[0], choices)}")
    chosen = split or options.pop("split", DEFAULT_SPLIT)
    return entry.open(Spec(kind, path, chosen, options, entry.layout))


def _open_folder(spec: Spec) -> Reader:
    captions = spec.options.get("captions")
    if captions is None or captions == "sidecar":
        return ImageFolder(spec.path, cast("Literal['sidecar'] | None", captions))
    return ImageFolder(spec.path, spec.find("captions", ()))


def _open_coco(spec: Spec) -> Reader:
    reader = CocoInstances(
        _annotations(spec, "instances"),
        _images(spec),
        masks=spec.choice("masks", ("yes", "no")) != "no",
        crowd=_crowd(spec),
    )
    return _captioned(reader, spec)


def _open_panoptic(spec: Spec) -> Reader:
    annotations = _annotations(spec, "panoptic")
    # The official archive unpacks into a folder of the json's own name beside it.
    beside = str(annotations.with_suffix("").absolute())
    masks = spec.find("masks", [beside, f"panoptic_{spec.split}2017", f"panoptic_{spec.split}", "panoptic"])
    return _captioned(CocoPanoptic(annotations, masks, _images(spec), crowd=_crowd(spec)), spec)


def _open_captions(spec: Spec) -> Reader:
    return CocoCaptions(_annotations(spec, "captions"), _images(spec))


def _open_lvis(spec: Spec) -> Reader:
    names = [f"lvis_v1_{spec.split}.json", f"lvis_v0.5_{spec.split}.json"]
    annotations = _file(spec, [*names, *(f"annotations/{name}" for name in names)])
    masks = spec.choice("masks", ("yes", "no")) != "no"
    return Lvis(annotations, _folder_or_none(spec, ["images", "."]), masks=masks)


def _open_labelmaps(spec: Spec) -> Reader:
    images = spec.find("images", [f"images/{spec.split}", "images"])
    labels = spec.find("labels", [f"labels/{spec.split}", "labels", f"annotations/{spec.split}", "annotations"])
    names = _names(spec)
    offset = spec.number("offset", 0)
    ignore = spec.number("ignore", unlabelled_id(len(names) + offset))
    return LabelMapFolder(images, labels, names, offset=offset, ignore={ignore})


def _names(spec: Spec) -> Sequence[str]:
    given = spec.options.get("names", "")
    return class_names(given) if given in CLASS_LISTS else _lines(spec.find("names", ["names.txt"]))


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: names are UTF-8 text, one a line ({error}).") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _open_voc(spec: Spec) -> Reader:
    background = cast("Background", spec.choice("background", get_args(Background)) or "ignore")
    return open_voc(spec.root, spec.split, background)


def _open_pascal_context(spec: Spec) -> Reader:
    classes = cast("Classes", spec.choice("classes", get_args(Classes)) or "59")
    return open_pascal_context(spec.root, spec.split, classes)


def _open_world(spec: Spec) -> Reader:
    if spec.path:
        raise InputError(
            f"The world is drawn, not read: {spec.path!r} is no part of it. Write world or world?count=100."
        )
    side = spec.number("size", 256)
    world = World(
        spec.split,
        count=spec.number("count", 500),
        size=(side, side),
        seed=spec.number("seed", 0),
        shapes=cast("Marked", spec.choice("shapes", ("all", "base")) or "all"),
    )
    benchmark = spec.choice("negatives", BENCHMARKS)
    return world if benchmark is None else FineGrainedWorld(world, benchmark)


def _open_fgovd(spec: Spec) -> Reader:
    annotations = _file(spec, [f"{spec.split}.json", f"benchmarks/{spec.split}.json"])
    return FgOvd(annotations, _folders(spec, annotations), masks=spec.choice("masks", ("yes", "no")) != "no")


def _open_karpathy(spec: Spec) -> Reader:
    annotations = _file(spec, ["dataset_coco.json", "annotations/dataset_coco.json"])
    return Karpathy(
        annotations,
        _folders(spec, annotations),
        split=spec.split,
        restval=cast("Restval", spec.choice("restval", get_args(Restval)) or "keep"),
        count=spec.number("count", 0) if "count" in spec.options else None,
    )


def _folders(spec: Spec, annotations: Path) -> Sequence[Path] | None:
    """Return where pictures may lie that are not needed to open a data set, None where they are not wanted."""
    if "images" in spec.options:
        folder = _folder_or_none(spec, [])
        return None if folder is None else (folder, folder / "images")
    return folders_beside(annotations)


def _annotations(spec: Spec, stem: str) -> Path:
    names = [f"{stem}_{spec.split}2017.json", f"{stem}_{spec.split}.json", f"{stem}.json"]
    return _file(spec, [*(f"annotations/{name}" for name in names), *names])


def _file(spec: Spec, candidates: list[str]) -> Path:
    path = Path(spec.path).expanduser()
    return path if path.is_file() else spec.find("annotations", candidates)


def _images(spec: Spec) -> Path | None:
    year = f"{spec.split}2017"
    return _folder_or_none(spec, [year, f"images/{year}", f"images/{spec.split}", spec.split, "images"])


def _folder_or_none(spec: Spec, candidates: list[str]) -> Path | None:
    return None if spec.options.get("images") == "none" else spec.find("images", candidates)


def _crowd(spec: Spec) -> Crowd:
    return cast("Crowd", spec.choice("crowd", ("skip", "ignore", "keep")) or "skip")


def _captioned(reader: Reader, spec: Spec) -> Reader:
    if "captions" not in spec.options:
        return reader
    path = spec.find("captions", ())
    return Captioned(reader, CocoCaptions(path).by_record())


_COCO_LAYOUT = "annotations/{}_val2017.json and val2017/*.jpg (the official folders), or {}.json and images/"

KINDS: Mapping[str, Kind] = {
    "folder": Kind(_open_folder, "a folder of images, searched recursively", ("captions",)),
    "coco": Kind(
        _open_coco,
        _COCO_LAYOUT.format("instances", "instances"),
        ("annotations", "images", "masks", "crowd", "captions"),
    ),
    "coco-panoptic": Kind(
        _open_panoptic,
        _COCO_LAYOUT.format("panoptic", "panoptic") + ", with the PNGs in a folder of the json's name beside it",
        ("annotations", "images", "masks", "crowd", "captions"),
    ),
    "coco-captions": Kind(_open_captions, _COCO_LAYOUT.format("captions", "captions"), ("annotations", "images")),
    "lvis": Kind(
        _open_lvis,
        "lvis_v1_val.json with COCO's train2017/ and val2017/ beside it",
        ("annotations", "images", "masks"),
    ),
    "fgovd": Kind(_open_fgovd, FGOVD_LAYOUT, ("annotations", "images", "masks")),
    "karpathy": Kind(_open_karpathy, KARPATHY_LAYOUT, ("annotations", "images", "restval", "count")),
    "ade20k": Kind(lambda spec: open_ade20k(spec.root, spec.split), ADE20K_LAYOUT),
    "ade20k-847": Kind(lambda spec: open_ade20k_full(spec.root, spec.split), ADE20K_FULL_LAYOUT),
    "voc": Kind(_open_voc, VOC_LAYOUT, ("background",)),
    "pascal-context": Kind(_open_pascal_context, PASCAL_CONTEXT_LAYOUT, ("classes",)),
    "coco-stuff": Kind(lambda spec: open_coco_stuff(spec.root, spec.split), COCO_STUFF_LAYOUT),
    "cityscapes": Kind(lambda spec: open_cityscapes(spec.root, spec.split), CITYSCAPES_LAYOUT),
    "camvid": Kind(lambda spec: open_camvid(spec.root, spec.split), CAMVID_LAYOUT),
    "pairs": Kind(lambda spec: PairFolder(spec.path), PAIRS_LAYOUT),
    "world": Kind(
        _open_world,
        "nothing: the embedded world is drawn as it is read",
        ("count", "size", "seed", "shapes", "negatives"),
    ),
    "labelmaps": Kind(
        _open_labelmaps,
        "images/, labels/ with PNGs of the same names, and names.txt with a class a line (or names=ade20k-150, ...)",
        ("images", "labels", "names", "offset", "ignore"),
    ),
}
"""Every kind of data set by name; a new one is one entry."""
