from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch

from closeup.errors import InputError, ModelError
from closeup.models.checkpoint import CONFIG, WEIGHTS, save_local_dir
from closeup.models.load import find, load
from tiny_clips import vit_clip
from tiny_towers import images


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_local_dir(vit_clip(), tmp_path_factory.mktemp("models") / "saved")


@pytest.mark.parametrize("form", ["{}", "local-dir:{}", "{}/" + WEIGHTS])
def test_forms_of_a_saved_model(saved: Path, form: str) -> None:
    clip = load(form.format(saved), device="cpu")
    assert clip.fingerprint == vit_clip().fingerprint
    assert clip.name == form.format(saved)


@pytest.mark.slow
@torch.no_grad()
def test_real_architecture_works_at_any_size() -> None:
    clip = load("random:ViT-B-32", device="cpu", precision="fp32")
    assert (clip.dim, clip.patch, clip.blocks, clip.image_size) == (512, 32, 12, (224, 224))
    for height, width in [(224, 224), (96, 160), (50, 33)]:
        maps = clip.encode_dense(images(height, width, count=1))
        assert maps.shape == (1, 512, -(-height // 32), -(-width // 32))
        assert maps.isfinite().all()


def test_random_model_is_its_seed_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = load("random:ViT-S-32-alt", device="cpu").fingerprint
    assert torch.equal(torch.rand(3), expected)
    assert load("random:ViT-S-32-alt@0", device="cpu").fingerprint == first
    assert load("random:ViT-S-32-alt@1", device="cpu").fingerprint != first


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B16/openai", "Unknown model 'ViT-B16/openai'. Did you mean 'ViT-B-16/openai'"),
        ("vit-b-16", "Unknown model 'vit-b-16'. Did you mean 'ViT-B-16'"),
        ("ViT-B-16/opena", "Unknown weights 'opena' of 'ViT-B-16'. Did you mean 'openai'"),
        ("ViT-B-16", "'ViT-B-16' names no weights.*random:ViT-B-16"),
        ("ViT-M-16", "open_clip has none for it"),
        ("random:ViT-B16", "Unknown architecture 'ViT-B16'. Did you mean 'ViT-B-16'"),
        ("random:ViT-B-16@x", "seed 'x'"),
        ("local-dir:/nowhere", "'/nowhere' is not a model folder: it holds no open_clip_config.json"),
        ("/nowhere/a.pt", "There is no checkpoint file '/nowhere/a.pt'"),
        ("ViT-B-16/nowhere/a.pt", "There is no checkpoint file 'nowhere/a.pt'"),
        ("dog", "A model is 'tiny'"),
        ("", "Unknown model ''"),
    ],
)
def test_bad_names_say_what_to_do(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(name)


def test_architecture_is_for_files_alone(saved: Path) -> None:
    for name in ("tiny", "ViT-B-16/openai", str(saved)):
        with pytest.raises(ModelError, match=r"tells its own architecture; 'RN50' was given too"):
            find(name, "RN50")


def test_quick_gelu_is_the_tags() -> None:
    assert find("ViT-B-16/openai").config["model_cfg"]["quick_gelu"]
    assert not find("ViT-B-16/laion2b_s34b_b88k").config["model_cfg"].get("quick_gelu", False)
    assert find("ViT-B-16-quickgelu/openai").config["model_cfg"]["quick_gelu"]


def test_every_tag_of_open_clip_is_a_name() -> None:
    for architecture, tag in open_clip.list_pretrained():
        source = find(f"{architecture}/{tag}")
        assert (source.name, source.tag) == (architecture, tag)


def test_file_alone_needs_its_architecture(saved: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes((saved / WEIGHTS).read_bytes())
    with pytest.raises(ModelError, match=r"does not tell its architecture.*'weights.json'"):
        load(weights)
    assert find(str(weights), "ViT-B-32").name == "ViT-B-32"
    assert find(f"ViT-B-16/{weights}").name == "ViT-B-16"
    (tmp_path / "weights.json").write_text(json.dumps({"architecture": "ViT-L-14"}))
    assert find(str(weights)).name == "ViT-L-14"
    with pytest.raises(ModelError, match="Unknown architecture 'ViT-X'"):
        find(str(weights), "ViT-X")


def test_weights_of_another_architecture_are_refused(saved: Path) -> None:
    with pytest.raises(ModelError, match=r"weights in '.*' are not of this architecture: positional_embedding is"):
        load(saved / WEIGHTS, architecture="ViT-S-32-alt", device="cpu")


@pytest.mark.parametrize(
    ("config", "message"),
    [("{", "cannot be read as json"), ("[]", "no json object"), ("{}", "holds no 'model_cfg'")],
)
def test_broken_folders_are_named(tmp_path: Path, config: str, message: str) -> None:
    (tmp_path / CONFIG).write_text(config)
    with pytest.raises(ModelError, match=message):
        load(tmp_path)


def test_folder_without_weights_is_no_random_model(saved: Path, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text((saved / CONFIG).read_text())
    with pytest.raises(ModelError, match="holds no weights"):
        load(tmp_path)


def test_unknown_device_and_precision(saved: Path) -> None:
    with pytest.raises(InputError, match="Unknown device 'gpu'"):
        load(saved, device="gpu")
    for device in ("cuda:99", "meta"):
        with pytest.raises(InputError, match=f"device '{device}' cannot be used here: .*'auto', or 'cpu'"):
            load(saved, device=device)
    with pytest.raises(InputError, match=r"Unknown precision 'fp46'. Did you mean"):
        load(saved, precision="fp46")


OFFLINE = """
from closeup.errors import ModelError
from closeup.models.load import load
for name in ("hf-hub:nobody/nothing", "ViT-B-32/openai"):
    try:
        load(name)
    except ModelError as error:
        print(error)
"""


@pytest.mark.slow
def test_no_network_is_one_clear_error(tmp_path: Path) -> None:
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run([sys.executable, "-c", OFFLINE], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first.startswith("The model 'hf-hub:nobody/nothing' could not be fetched")
    assert second.startswith("The model 'ViT-B-32/openai' could not be fetched")
    assert first.endswith("Without a network, give a folder or a file with the weights.")
