"""Embeddings kept on disk: against embedding one by one, and whatever may happen to their files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from closeup.data.record import Description, Reader, Record
from closeup.errors import CloseupError, DataError, InputError
from closeup.models.clip import Clip
from closeup.recipes.embed_features import BEGUN, CAPTIONS, Shown, embed_features, regions_with_wrong, whole_pictures
from closeup.recipes.features import CARD, IMAGES, ITEMS, TEXTS, Features, open_features
from commands import files_below
from full_disk import room_for
from tiny_clips import picture, vit_clip

WRONG = 2
RECORDS = 7
TABLES = (IMAGES, TEXTS, ITEMS)
TOLD: Mapping[str, Any] = {"records": "seven", "count": RECORDS}


class Broken(Exception):
    """What a reader dies of in these tests."""


class Described:
    """Seven pictures of two to four described regions; some share captions, some have too few wrong ones."""

    names = ("thing",)
    things = (True,)

    def __init__(self, *, masks: bool = False, silent: Sequence[int] = (), breaks_at: int = 99) -> None:
        self._masks, self._silent, self._breaks_at = masks, silent, breaks_at

    def __len__(self) -> int:
        return RECORDS

    def __getitem__(self, index: int) -> Record:
        if index == self._breaks_at:
            raise Broken
        count = 2 + index % 3
        boxes = torch.tensor([[3.0 * row, 2.0 * row, 3.0 * row + 17, 2.0 * row + 25] for row in range(count)])
        told = [
            Description(
                f"right {index % 4} {row}", tuple(f"wrong {row} {n}" for n in range(WRONG + (row + index) % 3 - 1))
            )
            for row in range(count)
        ]
        captions = tuple(f"caption {index % 2} {n}" for n in range(index % 3 * 3))
        image = picture(48, 40 + index, index).numpy()
        if index in self._silent:
            return Record(str(index), image, None)
        if not self._masks:
            return Record(str(index), image, None, boxes=boxes, descriptions=tuple(told), captions=captions)
        planes = torch.zeros(count, 48, 40 + index, dtype=torch.bool)
        for plane, (left, top, right, bottom) in zip(planes, boxes.int().tolist(), strict=True):
            plane[top:bottom, left:right] = True
        return Record(str(index), image, None, masks=planes, descriptions=tuple(told), captions=captions)


pytestmark = pytest.mark.filterwarnings("ignore:.*are left out")


@pytest.fixture(scope="module")
def clip() -> Clip:
    return vit_clip()


def embedded(clip: Clip, folder: Path, reader: Reader | None = None, **changes: Any) -> Features:  # noqa: ANN401
    settings: dict[str, Any] = {
        "told": TOLD,
        "captions": 1 + WRONG,
        "batch": 2,
        "workers": 0,
        "take": regions_with_wrong(WRONG),
    }
    return embed_features(clip, reader or Described(), folder=folder, **(settings | changes))


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (*TABLES, CARD)}


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("enlarge", [1.0, 1.5])
def test_regions_are_those_embedded_one_by_one(clip: Clip, tmp_path: Path, masks: bool, enlarge: float) -> None:
    features = embedded(clip, tmp_path, Described(masks=masks), enlarge=enlarge)
    wanted, texts = [], []
    for index in range(RECORDS):
        record = Described()[index]
        assert record.boxes is not None
        for box, told in zip(record.boxes, record.descriptions, strict=True):
            if len(told.wrong) < WRONG:
                continue
            width, height = float(box[2] - box[0]), float(box[3] - box[1])
            grown = box + torch.tensor([-width, -height, width, height]) * (enlarge - 1) / 2
            left, top, right, bottom = grown.tolist()
            seen = record.load()
            around = (max(0, int(left // 1)), max(0, int(top // 1)), min(seen.width, -int(-right // 1)))
            cut = seen.crop((*around, min(seen.height, -int(-bottom // 1))))
            wanted.append(clip.encode_image(clip.preprocess(cut)[0][None])[0])
            texts.append(clip.encode_text([told.right, *told.wrong[:WRONG]], normalize=False))
    assert (len(features), features.wrong, features.dim) == (len(wanted), WRONG, 24)
    given = features.take(range(len(features)))
    torch.testing.assert_close(given["images"], torch.stack(wanted), atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(given["captions"], torch.stack(texts), atol=2e-3, rtol=2e-3)
    assert {tensor.dtype for tensor in given.values()} == {torch.float32}
    assert files_below(tmp_path) == sorted([*TABLES, CARD, "texts.jsonl"])


def test_whole_pictures_have_their_first_captions(clip: Clip, tmp_path: Path) -> None:
    features = embedded(clip, tmp_path, take=whole_pictures, captions=1)
    records = [Described()[index] for index in range(RECORDS)]
    pairs = [(record, caption) for record in records for caption in record.captions[:CAPTIONS]]
    assert any(len(record.captions) > CAPTIONS for record in records)
    assert any(not record.captions for record in records)
    given = features.take(range(len(features)))
    images = torch.cat([clip.encode_image(clip.preprocess(record.load())[0][None]) for record, _ in pairs])
    texts = clip.encode_text([caption for _, caption in pairs], normalize=False)
    torch.testing.assert_close(given["images"], images, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(given["captions"][:, 0], texts, atol=2e-3, rtol=2e-3)
    assert len(features.images) == sum(bool(record.captions) for record in records)


def test_each_text_is_kept_once(clip: Clip, tmp_path: Path) -> None:
    features = embedded(clip, tmp_path)
    records = (Described()[index] for index in range(RECORDS))
    told = [each for record in records for each in record.descriptions if len(each.wrong) >= WRONG]
    distinct = dict.fromkeys(text for each in told for text in (each.right, *each.wrong[:WRONG]))
    assert len(features.texts) == len(distinct) < len(told) * (1 + WRONG)
    kept = [json.loads(line) for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
    assert kept == list(distinct)
    for item, each in zip(features.items, told, strict=True):
        assert [kept[row] for row in item[1:]] == [each.right, *each.wrong[:WRONG]]


@pytest.mark.parametrize("workers", [1, 2])
def test_threads_change_nothing(clip: Clip, tmp_path: Path, workers: int) -> None:
    embedded(clip, tmp_path / "alone")
    embedded(clip, tmp_path / "helped", workers=workers)
    assert files(tmp_path / "alone") == files(tmp_path / "helped")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("at", range(RECORDS))
def test_stopped_and_begun_again_ends_the_same(clip: Clip, tmp_path: Path, at: int, workers: int) -> None:
    embedded(clip, tmp_path / "whole")
    folder = tmp_path / "parts"
    with pytest.raises(Broken):
        embedded(clip, folder, Described(breaks_at=at), workers=workers)
    assert not (folder / CARD).exists()
    assert json.loads((folder / BEGUN).read_text())["records"] == at // 2 * 2, "whole batches alone"
    told: list[tuple[int, int]] = []
    embedded(clip, folder, on_progress=lambda done, every: told.append((done, every)))
    assert files(folder) == files(tmp_path / "whole")
    assert told == [(min(done, RECORDS), RECORDS) for done in range(at // 2 * 2 + 2, RECORDS + 2, 2)]
    assert not (folder / BEGUN).exists()


def test_a_torn_batch_is_cut_off(clip: Clip, tmp_path: Path) -> None:
    embedded(clip, tmp_path / "whole")
    folder = tmp_path / "parts"
    with pytest.raises(Broken):
        embedded(clip, folder, Described(breaks_at=4))
    for name in (*TABLES, "texts.jsonl"):
        with (folder / name).open("ab") as file:
            file.write(b"torn\xff")
    embedded(clip, folder)
    assert files(folder) == files(tmp_path / "whole")


def test_lost_bytes_are_not_made_up(clip: Clip, tmp_path: Path) -> None:
    with pytest.raises(Broken):
        embedded(clip, tmp_path, Described(breaks_at=4))
    (tmp_path / TEXTS).write_bytes((tmp_path / TEXTS).read_bytes()[:-1])
    with pytest.raises(DataError, match=r"texts\.f16 is cut short"):
        embedded(clip, tmp_path)


@pytest.mark.parametrize("finished", [False, True])
def test_other_embeddings_are_refused(clip: Clip, tmp_path: Path, finished: bool) -> None:
    if finished:
        embedded(clip, tmp_path)
    else:
        with pytest.raises(Broken):
            embedded(clip, tmp_path, Described(breaks_at=4))
    refused: list[tuple[str, Callable[[], Features]]] = [
        ("records", lambda: embedded(clip, tmp_path, told={**TOLD, "records": "eight"})),
        ("clip", lambda: embedded(vit_clip(seed=1), tmp_path)),
        ("enlarge", lambda: embedded(clip, tmp_path, enlarge=2.0)),
    ]
    for what, attempt in refused:
        with pytest.raises(InputError, match=f"made with another {what}"):
            attempt()
    assert len(embedded(clip, tmp_path)), "what is there stays as it was"


def test_finished_embeddings_are_opened_without_reading(clip: Clip, tmp_path: Path) -> None:
    embedded(clip, tmp_path)
    before = files(tmp_path)
    again = embedded(clip, tmp_path, Described(breaks_at=0))
    assert again.card["told"]["records"] == "seven"
    assert files(tmp_path) == before


def test_a_folder_of_something_else_is_left_alone(clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        embedded(clip, tmp_path)
    assert files_below(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("room", [200, 400, 900])
def test_a_full_disk_is_one_error_and_the_rest_follows(clip: Clip, tmp_path: Path, room: int) -> None:
    embedded(clip, tmp_path / "whole")
    folder = tmp_path / "parts"
    with room_for(room), pytest.raises(CloseupError, match=r"Cannot keep embeddings in .*: File too large"):
        embedded(clip, folder)
    embedded(clip, folder)
    assert files(folder) == files(tmp_path / "whole")


def test_a_folder_that_cannot_be_is_a_clear_error(clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CloseupError, match="Cannot keep embeddings in"):
        embedded(clip, tmp_path / "file" / "features")


def test_silent_records_are_passed_over(clip: Clip, tmp_path: Path) -> None:
    some = embedded(clip, tmp_path / "some", Described(silent=(0, 1, 5)))
    assert 0 < len(some) < len(embedded(clip, tmp_path / "all"))
    with pytest.raises(DataError, match="No record has a caption to learn from"):
        embedded(clip, tmp_path / "none", Described(silent=range(RECORDS)))


@pytest.mark.parametrize("name", TABLES)
def test_files_that_are_not_whole_are_refused(clip: Clip, tmp_path: Path, name: str) -> None:
    embedded(clip, tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-2])
    with pytest.raises(DataError, match=f"cut short .*{name}"):
        open_features(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match="cut short"):
        open_features(tmp_path)


@pytest.mark.parametrize("card", [None, "torn", "{}"])
def test_a_folder_that_is_not_finished_is_refused(clip: Clip, tmp_path: Path, card: str | None) -> None:
    embedded(clip, tmp_path)
    if card is None:
        (tmp_path / CARD).unlink()
    else:
        (tmp_path / CARD).write_text(card)
    with pytest.raises(DataError, match="no finished embeddings"):
        open_features(tmp_path)


def test_numbers_too_large_for_half_precision_are_told(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = clip.encode_regions
    monkeypatch.setattr(clip, "encode_regions", lambda *given, **said: [1e6 * rows for rows in usual(*given, **said)])
    with pytest.raises(DataError, match="kept in half precision, and here is a number as large as"):
        embedded(clip, tmp_path)


def test_items_are_taken_in_the_order_asked_for() -> None:
    rng = np.random.default_rng(0)
    images, texts = rng.standard_normal((3, 4)), rng.standard_normal((5, 4)).astype(np.float16)
    features = Features(images, texts, np.array([[2, 0, 4], [0, 3, 3]], dtype=np.int32))
    given = features.take([1, 0, 1])
    assert torch.equal(given["images"], torch.tensor(images[[0, 2, 0]]).float())
    assert torch.equal(given["captions"], torch.tensor(texts[[[3, 3], [0, 4], [3, 3]]]).float())


def test_what_is_taken_of_a_record() -> None:
    shown = regions_with_wrong(WRONG)(Described()[2])
    assert isinstance(shown, Shown)
    assert [(place, len(texts)) for place, texts in shown.items] == [
        (row, 1 + WRONG) for row in range(len(shown.items))
    ]
    assert regions_with_wrong(9)(Described()[2]) is None
    assert whole_pictures(Described()[0]) is None
