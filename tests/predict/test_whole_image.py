from __future__ import annotations

import PIL.Image
import pytest
import torch

from closeup._types import IGNORE
from closeup.data.record import Record
from closeup.errors import DataError
from closeup.models.clip import Clip
from closeup.predict.whole_image import classification, encode_whole, label_of, retrieval
from closeup.text import get_templates
from tiny_clips import picture

NAMES = ("cat", "dog", "car", "tree")


class Album:
    """Pictures with one label and two captions each; every third without a label, every fourth without captions."""

    names = NAMES
    things = (True,) * 4

    def __len__(self) -> int:
        return 13

    def __getitem__(self, index: int, /) -> Record:
        image = PIL.Image.fromarray(picture(40 + index, 50, seed=index).numpy())
        captions = () if index % 4 == 3 else (f"a {NAMES[index % 4]} number {index}", f"picture {index}")
        labels = None if index % 3 == 2 else torch.tensor([index % 4])
        return Record(f"p{index}", image, (40 + index, 50), labels=labels, captions=captions)


@torch.no_grad()
def one_by_one(clip: Clip) -> torch.Tensor:
    album = Album()
    return torch.cat(
        [clip.encode_image(clip.preprocess(album[i].load())[0][None], normalize=True) for i in range(len(album))]
    )


def test_images_are_encoded_in_order_whatever_the_batch(clip: Clip) -> None:
    for batch, workers in ((64, 0), (4, 2)):
        found = encode_whole(clip, Album(), batch=batch, workers=workers)
        assert torch.allclose(found.embeddings, one_by_one(clip), atol=1e-5)
        assert found.labels.tolist() == [IGNORE if i % 3 == 2 else i % 4 for i in range(13)]
        assert found.captions[3] == ()


def test_progress_and_limit(clip: Clip) -> None:
    told: list[tuple[int, int]] = []
    found = encode_whole(clip, Album(), limit=3, on_progress=lambda done, count: told.append((done, count)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert len(found.embeddings) == len(found.captions) == 3


def test_classification_is_the_share_of_right_words(clip: Clip) -> None:
    found = classification(clip, encode_whole(clip, Album()), NAMES)
    bank = clip.encode_text([get_templates("simple").fill(name)[0] for name in NAMES])
    guesses = (one_by_one(clip) @ bank.T).argmax(1).tolist()
    asked = [i for i in range(13) if i % 3 != 2]
    assert found.micro() == pytest.approx(sum(guesses[i] == i % 4 for i in asked) / len(asked))


def test_retrieval_is_counted_by_hand(clip: Clip) -> None:
    found = retrieval(clip, encode_whole(clip, Album()))
    album, images = Album(), one_by_one(clip)
    kept = [i for i in range(13) if album[i].captions]
    texts = [(i, caption) for i in kept for caption in album[i].captions]
    scores = clip.encode_text([caption for _, caption in texts]) @ images[kept].T
    first = [kept[int(row.argmax())] == owner for row, (owner, _) in zip(scores, texts, strict=True)]
    assert found.text_to_image[0] == pytest.approx(sum(first) / len(first))
    back = [texts[int(column.argmax())][0] == i for column, i in zip(scores.T, kept, strict=True)]
    assert found.image_to_text[0] == pytest.approx(sum(back) / len(back))


def test_regions_are_no_label_of_the_image() -> None:
    image = PIL.Image.new("RGB", (20, 20))
    box = torch.tensor([[0.0, 0.0, 5.0, 5.0]])
    assert label_of(Record("a", image, None, labels=torch.tensor([2]))) == 2
    assert label_of(Record("a", image, None, labels=torch.tensor([2]), boxes=box)) == IGNORE
    assert label_of(Record("a", image, None, labels=torch.tensor([2, 3]))) == IGNORE


class Bare(Album):
    """Pictures and nothing else."""

    def __getitem__(self, index: int, /) -> Record:
        return Record("bare", PIL.Image.new("RGB", (20, 20)), None)


def test_nothing_to_measure_is_an_error(clip: Clip) -> None:
    images = encode_whole(clip, Bare())
    with pytest.raises(DataError, match="no image has a label"):
        classification(clip, images, NAMES)
    with pytest.raises(DataError, match="no image has a caption"):
        retrieval(clip, images)
