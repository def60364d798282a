"""The verb pairs: folders of pairs in, counts and a sheet out, and one clear line where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from closeup.data.registry import open_reader
from closeup.recipes.run_adapt import Adaptation, adapt
from commands import Run, files_below, write_photo

WORLD = "world?count=6&size=64"


def test_captions_and_masks_become_pairs(closeup: Run, tmp_path: Path) -> None:
    ran = closeup("pairs", "--images", WORLD, "--masks", "truth", "--out", "pairs", "--shard", "5", "--json")
    assert ran.code == 0, ran.err
    told, reader = ran.json, open_reader("pairs:pairs")
    assert told["data"] == "pairs:pairs"
    assert told["pairs"] == len(reader) == sum(row["pairs"] for row in told["nouns"])
    assert [row["noun"] for row in told["nouns"]] == list(reader.names)
    assert (told["pictures"], told["left_out"]) == (6, 0)
    assert told["settings"]["masks"] == {"name": "truth", "fingerprint": ""}
    assert len(told["settings"]["model"]["fingerprint"]) == 64
    index = json.loads((tmp_path / "pairs" / "pairs.json").read_text())
    assert index["settings"] == {
        **told["settings"], "images": WORLD, "split": None, "records": 6, "per_shard": 5, "format": "png",
    }  # fmt: skip
    with PIL.Image.open(tmp_path / "pairs" / "pairs.png") as sheet:
        assert sheet.width > 300
    again = closeup("pairs", "--images", WORLD, "--masks", "truth", "--out", "pairs", "--shard", "5")
    assert again.code == 2
    assert "holds pairs already" in again.err
    more = closeup("pairs", "--images", WORLD, "--masks", "truth", "--out", "five", "--captions", "5", "--limit", "4")
    assert more.code == 0, more.err
    assert "from 4 pictures" in more.out
    assert 'closeup adapt maskadapt --images "pairs:five"' in more.out


def test_the_masks_of_a_data_set_with_their_names(closeup: Run) -> None:
    ran = closeup("pairs", "--images", WORLD, "--from", "truth", "--out", "pairs", "--format", "jpg", "--json")
    assert ran.code == 0, ran.err
    world = open_reader(WORLD, "train")
    assert ran.json["pairs"] == sum(world[index].count for index in range(6))
    assert ran.json["settings"] == {"from": "truth"}


def test_a_stopped_run_is_resumed(closeup: Run, tmp_path: Path) -> None:
    command = ("pairs", "--images", WORLD, "--from", "truth", "--shard", "8")
    assert closeup(*command, "--out", "whole").code == 0
    assert closeup(*command, "--out", "stopped").code == 0
    shards = sorted((tmp_path / "stopped").glob("*.npz"))
    assert len(shards) > 1
    (tmp_path / "stopped" / "pairs.json").unlink()
    shards[-1].unlink()
    refused = closeup(*command, "--out", "stopped")
    assert refused.code == 2
    assert "was not finished" in refused.err
    other = closeup("pairs", "--images", f"{WORLD}&seed=1", *command[3:], "--out", "stopped", "--resume")
    assert other.code == 2
    assert "images was" in other.err
    assert closeup(*command, "--out", "stopped", "--resume").code == 0
    for name in files_below(tmp_path / "whole"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes(), name


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Return a folder of photos with captions, one of them broken, and masks of theirs in another."""
    for number, text in enumerate(("a dog on grass", "a cat", "a cow")):
        photo = write_photo(tmp_path / "album" / f"{number}.png", seed=number)
        photo.with_suffix(".txt").write_text(text)
        masks = np.zeros((2, 48, 64), dtype=bool)
        masks[0, :, :32], masks[1, 8:40, 40:60] = True, True
        (tmp_path / "masks").mkdir(exist_ok=True)
        np.savez(tmp_path / "masks" / f"{number}.npz", masks=masks)
    (tmp_path / "album" / "1.png").write_bytes(b"no picture")
    return tmp_path / "album"


@pytest.mark.filterwarnings("default:left out")
def test_photos_with_sidecars_and_files_of_masks(closeup: Run, album: Path, small_clip_folder: Path) -> None:
    ran = closeup(
        "pairs", "--images", f"folder:{album}?captions=sidecar", "--masks", "masks", "--model", small_clip_folder,
        "--out", "pairs", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.err.count("closeup: warning: left out") == 1
    assert "1.png" in ran.err
    assert {row["noun"] for row in ran.json["nouns"]} == {"dog", "grass", "cow"}
    assert (ran.json["pictures"], ran.json["left_out"], ran.json["pairs"]) == (3, 1, 3)


@pytest.mark.filterwarnings("default:left out")
def test_only_listed_nouns(closeup: Run, album: Path, small_clip_folder: Path) -> None:
    Path("few.txt").write_text("Dog\n")
    base = ("pairs", "--images", f"folder:{album}?captions=sidecar", "--masks", "masks", "--model", small_clip_folder)
    ran = closeup(*base, "--only", "few.txt", "--out", "pairs", "--json")
    assert ran.code == 0, ran.err
    assert [row["noun"] for row in ran.json["nouns"]] == ["dog"]
    assert (ran.json["left_out"], ran.json["without_pair"]) == (1, 1)
    Path("none.txt").write_text("zebra\n")
    ran = closeup(*base, "--only", "none.txt", "--out", "other")
    assert ran.code == 2
    assert "No pairs: 1 of 3 pictures" in ran.err
    assert not Path("other").exists()


def test_regions_that_were_proposed_without_labels(closeup: Run, photos: Path, small_clip_folder: Path) -> None:
    (photos / "deep" / "a.png").unlink()
    assert closeup("propose", photos, "--out", "found.json", "--limit", "6").code == 0
    for name in ("a", "b"):
        (photos / f"{name}.txt").write_text("a red wall")
    ran = closeup(
        "pairs", "--images", f"folder:{photos}?captions=sidecar", "--masks", "found.json", "--model",
        small_clip_folder, "--out", "pairs", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.json["nouns"] == [{"noun": "wall", "pairs": 2}]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "--masks is missing"),
        (("--masks", "gone"), "no such file, folder or proposer"),
        (("--masks", "hf:/gone"), "could not be fetched"),
        (("--masks", "truth", "--from", "truth"), "drop --masks"),
        (("--masks", "truth", "--limit", "0"), "--limit 0"),
        (("--masks", "truth", "--captions", "0"), "0 captions"),
        (("--masks", "truth", "--least", "2"), "least cosine of 2"),
        (("--masks", "truth", "--batch", "0"), "batches of 0"),
        (("--masks", "truth", "--shard", "0"), "0 pairs a shard"),
        (("--masks", "truth", "--how", "mask-prompt"), "no mask prompts"),
        (("--masks", "truth", "--tagger", "nltk"), "Unknown tagger"),
        (("--masks", "truth", "--templates", "vlid"), "vlid"),
        (("--masks", "truth", "--only", "gone.txt"), "gone.txt"),
        (("--masks", "truth", "--model", "tinny"), "tinny"),
        (("--masks", "truth", "--out", "photo.png"), "photo.png"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    closeup: Run, photo: Path, tmp_path: Path, options: tuple[str, ...], told: str
) -> None:
    before = files_below(tmp_path)
    ran = closeup("pairs", "--images", WORLD, *(() if "--out" in options else ("--out", "pairs")), *options)
    assert ran.code == 2, ran.out
    assert told in ran.err
    assert ran.err.startswith("closeup: error: ")
    assert ran.err.count("\n") == 1
    assert files_below(tmp_path) == before
    assert photo.exists()


def test_data_without_captions_or_names(closeup: Run, photos: Path) -> None:
    ran = closeup("pairs", "--images", photos, "--masks", "truth", "--out", "pairs")
    assert (ran.code, "has no captions" in ran.err) == (2, True)
    ran = closeup("pairs", "--images", photos, "--from", "truth", "--out", "pairs")
    assert (ran.code, "names no masks" in ran.err) == (2, True)


def test_a_clip_is_adapted_on_pairs(closeup: Run, small_clip_folder: Path, tmp_path: Path) -> None:
    assert closeup("pairs", "--images", WORLD, "--from", "truth", "--out", "pairs").code == 0
    wanted = Adaptation(
        "maskadapt",
        "pairs:pairs",
        str(small_clip_folder),
        preset="tiny",
        training={"steps": 1, "batch_size": 4, "workers": 0, "precision": "fp32"},
    )
    done = adapt(wanted, tmp_path / "adapted")
    assert done.figures["loss"] > 0
