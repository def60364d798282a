"""Pairs in shards: what is written is read, by us and by the rules of WebDataset, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from closeup.data.pairs import INDEX, Pair, PairFolder, cut_pair
from closeup.data.registry import open_reader
from closeup.data.world import World
from closeup.data.write_pairs import PairWriter
from closeup.errors import DataError, InputError
from closeup.models.load import load
from closeup.recipes.maskadapt import MaskAdapt
from closeup.recipes.maskadapt_config import MaskAdaptConfig
from closeup.regions.masked_crops import masked_crops
from commands import files_below
from full_disk import room_for
from tiny_clips import vit_clip

WORLD = World("train", count=5, size=(64, 96))
SETTINGS = {"images": "world", "least": 0.25}


def pairs_of(index: int) -> list[Pair]:
    record = WORLD[index]
    assert record.masks is not None
    assert record.labels is not None
    return [
        cut_pair(record.load(), mask, WORLD.names[label], source=record.id, score=0.5)
        for mask, label in zip(record.masks, record.labels.tolist(), strict=True)
    ]


def write(folder: Path, *, stop: int = 5, **options: Any) -> Path:  # noqa: ANN401
    """Write the pairs of pictures up to ``stop``; beyond the fifth there is none, which is an IndexError."""
    with PairWriter(folder, SETTINGS, **options) as writer:
        for index in range(writer.pictures, stop):
            writer.add(pairs_of(index))
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files_below(folder)}


@pytest.mark.parametrize("per_shard", [1, 7, 1000])
def test_pairs_come_back_as_they_were(tmp_path: Path, per_shard: int) -> None:
    reader = PairFolder(write(tmp_path / "pairs", per_shard=per_shard))
    expected = [pair for index in range(5) for pair in pairs_of(index)]
    assert len(reader) == len(expected)
    for index in np.random.default_rng(0).permutation(len(reader)).tolist():
        record, pair = reader[index], expected[index]
        assert np.array_equal(np.asarray(record.load()), np.asarray(pair.crop))
        assert record.masks is not None
        assert record.labels is not None
        assert torch.equal(record.masks, pair.mask[None])
        assert [reader.names[label] for label in record.labels.tolist()] == [pair.noun]
        assert record.size == tuple(pair.mask.shape)
    with pytest.raises(IndexError):
        reader[len(reader)]
    counts = {pair.noun: sum(other.noun == pair.noun for other in expected) for pair in expected}
    assert reader.index["nouns"] == counts
    assert list(reader.names) == sorted(counts, key=lambda noun: (-counts[noun], noun))
    shards = [name for name in files_below(tmp_path / "pairs") if name.endswith(".tar")]
    assert [f"{name}.tar" for name in reader.index["shards"]] == shards
    assert len(shards) == {1: 5, 1000: 1}.get(per_shard, len(shards))


def webdataset(path: Path) -> dict[str, dict[str, bytes]]:
    """Read a tar file by WebDataset's rule: files in a row that are equal up to the first dot are a sample."""
    samples: dict[str, dict[str, bytes]] = {}
    last = ""
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, kind = member.name.partition(".")
            assert key == last or key not in samples, "a sample's files are not in a row"
            file = tar.extractfile(member)
            assert file is not None
            samples.setdefault(key, {})[kind] = file.read()
            last = key
    return samples


@pytest.mark.parametrize("form", ["png", "jpg"])
def test_shards_are_webdatasets(tmp_path: Path, form: str) -> None:
    folder = write(tmp_path / "pairs", per_shard=6, form=form)
    reader = PairFolder(folder)
    expected = iter([pair for index in range(5) for pair in pairs_of(index)])
    seen = 0
    for shard in sorted(folder.glob("*.tar")):
        for key, files in webdataset(shard).items():
            pair, record = next(expected), reader[seen]
            assert set(files) == {form, "mask.png", "json"}
            assert record.id == key
            crop = PIL.Image.open(io.BytesIO(files[form]))
            mask = PIL.Image.open(io.BytesIO(files["mask.png"]))
            assert mask.mode == "1"
            assert np.array_equal(np.asarray(mask), pair.mask.numpy())
            assert np.array_equal(np.asarray(crop), np.asarray(record.load()))
            far = np.abs(np.asarray(crop, dtype=float) - np.asarray(pair.crop, dtype=float)).mean()
            assert far == 0 if form == "png" else far < 6
            told = {"noun": pair.noun, "score": 0.5, "source": pair.source, "box": list(pair.box)}
            assert json.loads(files["json"]) == told
            seen += 1
    assert seen == len(reader)


def test_a_stopped_run_has_no_index_and_is_resumed_to_the_same_bytes(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    write(whole, per_shard=9)
    with pytest.raises(IndexError):
        write(stopped, stop=6, per_shard=9)
    left = files_below(stopped)
    assert left
    assert not [name for name in left if name == INDEX or name.startswith(".")]
    assert len([name for name in left if name.endswith(".tar")]) == len(left) / 2
    with pytest.raises(DataError, match="unfinished run"):
        PairFolder(stopped)
    with pytest.raises(InputError, match="was not finished"):
        PairWriter(stopped, SETTINGS, per_shard=9)
    with pytest.raises(InputError, match=r"least was 0\.25 and is now 0\.3"):
        PairWriter(stopped, {**SETTINGS, "least": 0.3}, per_shard=9, resume=True)
    # A shard that was cut off by a kill has no index of its own yet.
    (stopped / f"pairs-{len(left) // 2:06d}.tar").write_bytes(b"half")
    write(stopped, per_shard=9, resume=True)
    assert digests(stopped) == digests(whole)
    with pytest.raises(InputError, match="holds pairs already"):
        PairWriter(stopped, SETTINGS, per_shard=9, resume=True)


def test_pictures_without_a_pair_count_and_write_nothing(tmp_path: Path) -> None:
    with PairWriter(tmp_path / "none", {}) as writer:
        writer.add([])
        writer.add([], left_out=True)
    assert writer.counts == {"pictures": 2, "left_out": 1, "without_pair": 1, "pairs": 0}
    assert files_below(tmp_path) == []
    with PairWriter(tmp_path / "some", {}, per_shard=1) as writer:
        for pairs in ([], pairs_of(0), []):
            writer.add(pairs)
    index = PairFolder(tmp_path / "some").index
    assert (index["pictures"], index["without_pair"]) == (3, 2)


@pytest.mark.parametrize("room", [100, 9_000, 55_000])
def test_a_full_disk_leaves_no_half_shard(tmp_path: Path, room: int) -> None:
    folder = tmp_path / "pairs"
    with room_for(room), pytest.raises(OSError, match="File too large"):
        write(folder, per_shard=7)
    assert all(name.endswith((".tar", ".npz")) and not name.startswith(".") for name in files_below(tmp_path))
    if folder.exists():
        write(folder, per_shard=7, resume=True)
        assert digests(folder) == digests(write(tmp_path / "whole", per_shard=7))


def test_broken_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder of pairs"):
        open_reader(f"pairs:{tmp_path}/gone")
    with pytest.raises(DataError, match=r"holds no pairs\.json"):
        open_reader(f"pairs:{tmp_path}")
    folder = write(tmp_path / "pairs", per_shard=7)
    shard = folder / "pairs-000001.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[:-512])
    with pytest.raises(DataError, match=r"pairs-000001\.tar: has \d+ bytes"):
        PairFolder(folder)
    shard.unlink()
    with pytest.raises(DataError, match="has 0 bytes"):
        PairFolder(folder)
    shard.write_bytes(content)
    (folder / "pairs-000000.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match="not the index of a shard"):
        PairFolder(folder)
    (folder / INDEX).write_text("{}")
    with pytest.raises(DataError, match="not an index of pairs"):
        PairFolder(folder)
    with pytest.raises(InputError, match="is a file"):
        PairWriter(folder / INDEX, {})
    with pytest.raises(InputError, match="give 1 or more"):
        PairWriter(tmp_path / "new", {}, per_shard=0)


def test_masked_crops_of_a_pair_are_those_of_the_whole_picture(tmp_path: Path) -> None:
    clip, reader = load("tiny", device="cpu", precision="fp32"), PairFolder(write(tmp_path / "pairs"))
    place = 0
    for index in range(len(WORLD)):
        record = WORLD[index]
        assert record.masks is not None
        image, _ = clip.preprocess(record.load(), policy="native")
        crops, shown = masked_crops(image, record.masks, clip.image_size)
        for crop, mask in zip(crops, shown, strict=True):
            pair = reader[place]
            assert pair.masks is not None
            alone, _ = clip.preprocess(pair.load(), policy="native")
            cut, plane = masked_crops(alone, pair.masks, clip.image_size)
            assert torch.equal(cut[0], crop)
            assert torch.equal(plane[0], mask)
            place += 1
    assert place == len(reader)


@pytest.mark.parametrize("tune", ["tower", "prompts"])
def test_a_clip_learns_from_them(tmp_path: Path, tune: str) -> None:
    reader = open_reader(f"pairs:{write(tmp_path / 'pairs', per_shard=7)}", "train")
    config = MaskAdaptConfig().replace(tune=tune, depth=2)
    one, two = (MaskAdapt(vit_clip(), reader, config, seed=3) for _ in range(2))
    samples = [one.sample(position) for position in range(6)]
    for position in (5, 0, 3):
        again = two.sample(position)
        assert torch.equal(again.crops, samples[position].crops)
        assert torch.equal(again.labels, samples[position].labels)
    parameters = one.trainable()
    optimiser = torch.optim.AdamW(parameters.values(), lr=1e-2)
    batch = one.collate(samples)
    losses = []
    for _ in range(4):
        loss = one.module(batch)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
