from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from closeup.errors import InputError, ModelError
from closeup.models.checkpoint import CARD, CONFIG, WEIGHTS, load_weights, mismatches, read_state_dict, save_local_dir
from closeup.models.clip import Clip
from closeup.models.load import load
from goldens import Golden, assert_close, cases
from tiny_clips import eva_clip, eva_model, vit_clip, vit_model
from tiny_towers import images


@pytest.fixture(params=[vit_clip, eva_clip], ids=["vit", "eva"])
def clip(request: pytest.FixtureRequest) -> Clip:
    made: Clip = request.param()
    return made


@torch.no_grad()
def test_saved_model_comes_back(clip: Clip, tmp_path: Path) -> None:
    folder = save_local_dir(clip, tmp_path / "saved", {"recipe": "clipself"})
    again = load(folder, precision="fp32", device="cpu")
    pictures = images(19, 30)
    assert torch.equal(again.encode_dense(pictures), clip.encode_dense(pictures))
    assert torch.equal(again.encode_text(["a dog"]), clip.encode_text(["a dog"]))
    assert again.fingerprint == clip.fingerprint
    assert again.image_preprocess == clip.image_preprocess
    assert json.loads((folder / CARD).read_text()) == {"name": "tiny test", "recipe": "clipself"}
    assert not again.model.training


@torch.no_grad()
def test_saved_model_is_open_clips(clip: Clip, tmp_path: Path) -> None:
    folder = save_local_dir(clip, tmp_path / "saved")
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    pictures = images(32, 32)
    assert_close(clip.encode_image(pictures), model.eval().encode_image(pictures), 1e-5)
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["a dog"])
    assert_close(clip.encode_text(["a dog"], normalize=False), model.encode_text(tokens), 1e-5)
    assert preprocess.transforms[-1].mean == list(clip.mean)


@torch.no_grad()
def test_fp16_halves_the_file(tmp_path: Path) -> None:
    clip = vit_clip()
    full = save_local_dir(clip, tmp_path / "full") / WEIGHTS
    half = save_local_dir(clip, tmp_path / "half", dtype="fp16") / WEIGHTS
    assert half.stat().st_size < 0.6 * full.stat().st_size
    again = load(half.parent, precision="fp32", device="cpu")
    assert next(again.model.parameters()).dtype == torch.float32
    assert again.logit_scale == clip.logit_scale
    assert_close(again.encode_image(images(32, 32)), clip.encode_image(images(32, 32)), 1e-2)


def test_saving_replaces_a_saved_model_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    save_local_dir(vit_clip(seed=1), folder)
    save_local_dir(vit_clip(seed=2), folder, {"recipe": "second"})
    assert load(folder, device="cpu").fingerprint == vit_clip(seed=2).fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is not a saved model"):
        save_local_dir(vit_clip(), tmp_path / "notes")
    assert (tmp_path / "notes" / "mine.txt").read_text() == "mine"


def test_failed_save_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = save_local_dir(vit_clip(), tmp_path / "saved")
    before = (folder / WEIGHTS).read_bytes()
    with pytest.raises(TypeError):
        save_local_dir(vit_clip(seed=3), folder, {"recipe": object()})
    assert (folder / WEIGHTS).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state, "epoch": 3}])
def test_state_dict_is_found(tmp_path: Path, suffix: str, wrap: Callable[[object], object]) -> None:
    state = {f"module.{name}": tensor for name, tensor in vit_model().state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(wrap(state), path)
    else:
        save_file(state, path)
    found = read_state_dict(path)
    assert not mismatches(vit_model().state_dict(), found)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code in a checkpoint was run",)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "extra": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "evil.pkl.pt").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "evil.pkl.pt"):
        with pytest.raises(ModelError, match="cannot be read as plain tensors"):
            read_state_dict(tmp_path / name)
    assert "code" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"no weights at all"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_broken_files_are_named(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\..* cannot be read"):
        read_state_dict(path)


def test_file_without_weights_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "a.pt")
    with pytest.raises(ModelError, match=r"holds no state_dict, but a dictionary with the keys \['epoch'\]"):
        read_state_dict(tmp_path / "a.pt")


def test_wrong_weights_name_keys_and_shapes() -> None:
    model = vit_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ModelError, match=r"class_embedding is \(48,\) and not \(32,\)"):
        load_weights(model, vit_model(width=48).state_dict(), "'x.pt'")
    with pytest.raises(ModelError, match=r"resblocks.3.ln_1.weight is missing"):
        load_weights(vit_model(layers=4), model.state_dict(), "'x.pt'")
    with pytest.raises(ModelError, match=r"resblocks.3.ln_1.weight is unknown"):
        load_weights(model, vit_model(layers=4).state_dict(), "'x.pt'")
    with pytest.raises(ModelError, match="are not of this architecture"):
        load_weights(model, eva_model().state_dict(), "'x.pt'")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@torch.no_grad()
def test_weights_of_another_size_are_resized_as_open_clip_does() -> None:
    small, large = vit_model(image_size=32), vit_model(seed=1, image_size=48)
    load_weights(large, small.state_dict(), "'x.pt'")
    assert torch.equal(large.visual.positional_embedding[0], small.visual.positional_embedding[0])
    assert torch.equal(large.visual.proj, small.visual.proj)


@pytest.mark.parametrize("golden", cases("clipself_eva"))
@torch.no_grad()
def test_official_clipself_checkpoint_loads_by_its_own_names(golden: Golden, tmp_path: Path) -> None:
    clip = eva_clip()
    folder = save_local_dir(clip, tmp_path / "saved")
    config = json.loads((folder / CONFIG).read_text())
    model = golden.config["model"]
    config["model_cfg"]["text_cfg"] = {
        name: value for name, value in model["text_cfg"].items() if name not in ("xattn", "fusedLN")
    }
    (folder / CONFIG).write_text(json.dumps(config))
    torch.save({"state_dict": golden.weights()}, folder / "official.pt")
    official = load(folder / "official.pt", precision="fp32", device="cpu")
    assert_close(official.encode_dense(golden["in/img_square1"]), golden["out/encode_dense_square1"])
    assert official.logit_scale == pytest.approx(float(golden["w/logit_scale"].exp()))
