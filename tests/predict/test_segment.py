from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F

from closeup._types import IGNORE
from closeup.data.world import World
from closeup.errors import ImageError, InputError
from closeup.models.clip import Clip
from closeup.predict import segment, segment_many
from closeup.predict.image_sources import Skipped
from closeup.predict.words import as_bank
from closeup.text import Vocabulary
from tiny_clips import picture

WORDS = ["cat", "dog", "grass", "sky", "red car"]


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return picture(height, width, seed).numpy()


@pytest.mark.parametrize("size", [(50, 80), (80, 50), (1, 500), (500, 1), (1, 1), (7, 3), (33, 32)])
@pytest.mark.parametrize("window", [None, 24])
def test_every_pixel_of_the_original_image_has_a_word(clip: Clip, size: tuple[int, int], window: int | None) -> None:
    result = segment(clip, image(*size), WORDS, window=window, size=48)
    assert tuple(result.label_map.shape) == result.size == size
    assert int(result.label_map.min()) >= 0
    assert int(result.label_map.max()) < len(WORDS)
    assert bool(result.scores.isfinite().all())


@pytest.mark.parametrize("upsample", ["bilinear", "nearest"])
def test_against_a_brute_force_segmentation(clip: Clip, upsample: str) -> None:
    result = segment(clip, image(50, 80), WORDS, size=64, upsample=upsample)
    bank = as_bank(clip, WORDS)
    resized = PIL.Image.fromarray(image(50, 80)).resize((64, 40), PIL.Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(resized).copy()).permute(2, 0, 1).float() / 255
    pixels = (pixels - torch.tensor(clip.mean)[:, None, None]) / torch.tensor(clip.std)[:, None, None]
    with torch.no_grad():
        features = clip.encode_dense(pixels[None])
    cells = torch.stack([F.cosine_similarity(features, word[None, :, None, None])[0] for word in bank.embeddings])
    torch.testing.assert_close(result.cells, cells, atol=1e-5, rtol=0)
    options = {"mode": "bilinear", "align_corners": False} if upsample == "bilinear" else {"mode": "nearest-exact"}
    full = F.interpolate(cells[None], size=(50, 80), **options)[0]
    torch.testing.assert_close(result.scores, full.amax(dim=0), atol=1e-5, rtol=0)
    own = full.gather(0, result.label_map[None])[0]
    torch.testing.assert_close(own, full.amax(dim=0), atol=1e-5, rtol=0)


def test_pixels_below_the_threshold_are_background(clip: Clip) -> None:
    plain = segment(clip, image(50, 80), WORDS)
    full = F.interpolate(plain.cells[None], size=(50, 80), mode="bilinear")[0]
    best = (full * clip.logit_scale).softmax(dim=0).amax(dim=0)
    threshold = float(best.median())
    result = segment(clip, image(50, 80), WORDS, background=threshold)
    sure = (best - threshold).abs() > 1e-5
    assert torch.equal((result.label_map == IGNORE)[sure], (best < threshold)[sure])
    kept = result.label_map != IGNORE
    assert torch.equal(result.label_map[kept], plain.label_map[kept])
    assert torch.equal(segment(clip, image(50, 80), WORDS, background=0.0).label_map, plain.label_map)
    nothing = segment(clip, image(50, 80), WORDS, background=1.0)
    assert nothing.present == ()


def test_pixels_where_the_background_word_is_best_are_background(clip: Clip) -> None:
    plain = segment(clip, image(50, 80), WORDS)
    word = plain.present[-1]
    result = segment(clip, image(50, 80), WORDS, background=word)
    assert torch.equal(result.label_map == IGNORE, plain.mask(word))
    kept = result.label_map != IGNORE
    assert torch.equal(result.label_map[kept], plain.label_map[kept])


def test_a_background_word_joins_the_vocabulary(clip: Clip) -> None:
    result = segment(clip, image(50, 80), Vocabulary(WORDS), background="a wall")
    spelled = segment(clip, image(50, 80), [*WORDS, "a wall"], background="a wall")
    assert result.names == (*WORDS, "a wall")
    assert torch.equal(result.label_map, spelled.label_map)
    assert "a wall" not in result.present


def test_adding_a_word_never_changes_another_words_raw_score(clip: Clip) -> None:
    few = segment(clip, image(50, 80), WORDS[:2]).cells
    many = segment(clip, image(50, 80), WORDS).cells
    torch.testing.assert_close(many[:2], few, atol=1e-6, rtol=0)


def test_settings_out_of_range_are_refused(clip: Clip) -> None:
    with pytest.raises(InputError, match="probability"):
        segment(clip, image(50, 80), WORDS, background=30.0)
    with pytest.raises(InputError, match="'bicubic'"):
        segment(clip, image(50, 80), WORDS, upsample="bicubic")
    with pytest.raises(InputError, match="'a wall'"):
        segment(clip, image(50, 80), as_bank(clip, WORDS), background="a wall")


def test_many_images_are_each_image_alone_and_bad_ones_are_collected(clip: Clip, tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    PIL.Image.fromarray(image(30, 40)).save(good)
    skipped: list[Skipped] = []
    results = list(segment_many(clip, [good, tmp_path / "none.png", good], WORDS, skipped=skipped))
    alone = segment(clip, good, WORDS)
    assert [item.index for item in skipped] == [1]
    assert [result.image for result in results] == [good, good]
    assert all(torch.equal(result.label_map, alone.label_map) for result in results)
    with pytest.raises(ImageError):
        list(segment_many(clip, [tmp_path / "none.png"], WORDS))
    # A wrong setting is not the fault of the images.
    with pytest.raises(InputError, match="window"):
        list(segment_many(clip, [good], WORDS, window=0, skipped=skipped))


def test_the_world_end_to_end(clip: Clip, tmp_path: Path) -> None:
    world = World(count=2, size=(96, 128))
    for record in (world[0], world[1]):
        result = segment(clip, record.load(), world.names, size=96)
        assert record.label_map is not None
        assert result.label_map.shape == record.label_map.shape
        result.save(tmp_path / f"{record.id}.png")
        assert result.provenance.image_size == (72, 96)
