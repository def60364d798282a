"""A model by its name: open_clip's zoo, a hub, a folder, a file, random weights, or the one that ships inside."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import nn

from closeup.errors import CloseupError, InputError, ModelError, suggest
from closeup.models.changes import apply_changes
from closeup.models.checkpoint import CARD, CHANGES, CONFIG, PROMPTS, WEIGHTS, load_weights, read_state_dict
from closeup.models.clip import Clip, Tokenizer
from closeup.models.mask_prompt import give_stored_prompts
from closeup.models.precision import check_precision

PACKAGED = Path(str(resources.files("closeup"))) / "weights"
"""Models that ship inside, one folder each."""

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")

FORMS = (
    "'tiny', 'ARCHITECTURE/tag' as in 'ViT-B-16/openai', 'hf-hub:owner/name', a folder in open_clip's local-dir form, "
    "'ARCHITECTURE/path/to/weights.pt', or 'random:ARCHITECTURE'"
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from: what open_clip calls it, its configuration, and its weights."""

    name: str
    """A name that open_clip's ``create_model`` and ``get_tokenizer`` understand."""
    config: dict[str, Any]
    """``model_cfg`` and ``preprocess_cfg``."""
    tag: str | None = None
    weights: Path | None = None
    seed: int | None = None
    prompts: Path | None = None
    """Mask prompts beside the weights."""
    changes: Path | None = None
    """The folder of what an adaptation changed; all else is that of its base."""


def load(
    name: str | Path,
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    architecture: str | None = None,
) -> Clip:
    """Load a CLIP by name, ready for inference (eval mode, fp32 weights).

    ``name`` is ``tiny`` or another model that ships inside (``packaged_models``), ``ViT-B-16/openai`` (open_clip's
    architecture and tag), ``hf-hub:owner/name``, ``local-dir:FOLDER`` or the folder alone, a checkpoint file (official
    CLIPSelf and EVA-CLIP key names included), ``ViT-B-16/path/to/file.pt``, or ``random:ViT-B-16@seed`` (no weights;
    seed 0 if left out; ``random:tiny`` and ``random:FOLDER`` too).

    Args:
        name: As above.
        device: ``auto`` is CUDA where there is one, else the CPU; InputError for one that cannot be used.
        precision: ``auto``, ``fp32`` or ``bf16``, for inference (``models.precision``).
        architecture: open_clip's name of a checkpoint file's model, where no json card beside the file tells it.

    Raises:
        ModelError: For an unknown model (with near misses), weights of another architecture (with the keys), or
            files that cannot be fetched. Without a network the hub's client tries again for half a minute before
            it gives up; with ``HF_HUB_OFFLINE=1`` in the environment it does at once.
    """
    check_precision(precision)
    target = chosen_device(device)
    source = find(str(name), architecture)
    with _quiet():
        model, preprocess = _create(source)
    config = {"model_cfg": source.config["model_cfg"], "preprocess_cfg": preprocess}
    clip = Clip(model, config, name=str(name), tokenizer=_tokenizer(source.name), precision=precision)
    if source.prompts is not None:
        give_stored_prompts(clip.tower, read_state_dict(source.prompts), repr(str(source.prompts)))
    if source.changes is not None:
        clip = _changed(clip, source.changes)
    return clip.to(target)


def find(name: str, architecture: str | None = None) -> Source:
    """Tell where a model comes from, weights not touched; ModelError for a name that nothing matches."""
    if architecture is not None and (not name.endswith(SUFFIXES) or Path(name).is_dir()):
        raise ModelError(
            f"The model {name!r} tells its own architecture; {architecture!r} was given too. "
            "Leave it out: it is for checkpoint files."
        )
    if name == "tiny" or name in packaged_models():
        return _folder(_packaged(name))
    for scheme, finder in SCHEMES.items():
        if name.startswith(scheme):
            return finder(name.removeprefix(scheme))
    if name and Path(name).is_dir():
        return _folder(Path(name))
    if name.endswith(SUFFIXES):
        return _file(name, architecture)
    return _tagged(name)


def _folder(folder: Path | str) -> Source:
    folder = Path(folder)
    if (folder / CHANGES).is_file():
        return replace(find(_base_of(folder)["name"]), changes=folder)
    card = folder / CONFIG
    if not card.is_file():
        raise ModelError(f"{str(folder)!r} is not a model folder: it holds no {CONFIG}.")
    config = _read_json(card)
    if not isinstance(config.get("model_cfg"), dict):
        raise ModelError(f"{str(card)!r} holds no 'model_cfg', so it describes no open_clip model.")
    found = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.name != PROMPTS)
    preferred = sorted(found, key=lambda path: (path.suffix != ".safetensors", "open_clip" not in path.name, path.name))
    if not preferred:
        raise ModelError(f"{str(folder)!r} holds no weights ({', '.join(SUFFIXES)}).")
    prompts = folder / PROMPTS
    return Source(f"local-dir:{folder}", config, weights=preferred[0], prompts=prompts if prompts.is_file() else None)


def packaged_models() -> list[str]:
    """Return the names of the models that ship inside."""
    return sorted(path.parent.name for form in (WEIGHTS, CHANGES) for path in PACKAGED.glob(f"*/{form}"))


def _packaged(name: str) -> Path:
    folder = PACKAGED / name
    if name not in packaged_models():
        raise ModelError(
            f"The model {name!r} is not in this installation ({str(folder)!r} holds no weights). "
            "Install a release, or make it: closeup pretrain."
        )
    return folder


def _base_of(folder: Path) -> dict[str, str]:
    base = _read_json(folder / CARD).get("base") if (folder / CARD).is_file() else None
    if not isinstance(base, dict) or not all(isinstance(base.get(key), str) for key in ("name", "fingerprint")):
        raise ModelError(f"{str(folder)!r} holds {CHANGES} but no {CARD} that names the base model and its hash.")
    return base


def _changed(clip: Clip, folder: Path) -> Clip:
    base = _base_of(folder)
    name, clip.name = clip.name, base["name"]
    apply_changes(clip, read_state_dict(folder / CHANGES), base["fingerprint"], repr(str(folder)))
    clip.name = name
    return clip


def _hub(repository: str) -> Source:
    name = f"hf-hub:{repository}"
    with _quiet(), fetching(name):
        config = open_clip.get_model_config(name)
    return Source(name, {"model_cfg": config}, tag="")


def _random(architecture: str) -> Source:
    architecture, _, seed = architecture.partition("@")
    if seed and not seed.isdigit():
        raise ModelError(f"The seed {seed!r} of a random model is not a whole number. Write 'random:ViT-B-16@0'.")
    folder = PACKAGED / "tiny" if architecture == "tiny" else Path(architecture)
    if (folder / CONFIG).is_file():
        return Source(f"local-dir:{folder}", _read_json(folder / CONFIG), seed=int(seed or 0))
    return Source(architecture, {"model_cfg": _architecture(architecture)}, seed=int(seed or 0))


def _file(name: str, architecture: str | None) -> Source:
    path = Path(name)
    if architecture is None and not path.is_file():
        head, _, rest = name.partition("/")
        if head in open_clip.list_models():
            architecture, path = head, Path(rest)
    if not path.is_file():
        raise ModelError(f"There is no checkpoint file {str(path)!r}.")
    if architecture is not None:
        return Source(architecture, {"model_cfg": _architecture(architecture)}, weights=path)
    card = path.with_suffix(".json")
    described = _read_json(card) if card.is_file() else {}
    if isinstance(described.get("architecture"), str):
        return _file(name, described["architecture"])
    if (path.parent / CONFIG).is_file():
        beside = _folder(path.parent)
        return Source(beside.name, beside.config, weights=path)
    raise ModelError(
        f"The file {name!r} does not tell its architecture. Give architecture=..., write "
        f"'ARCHITECTURE/{path.name}', or put {card.name!r} with the key 'architecture' beside it."
    )


def _tagged(name: str) -> Source:
    architecture, _, tag = name.partition("/")
    if architecture not in open_clip.list_models():
        choices = [f"{known}/{known_tag}" for known, known_tag in open_clip.list_pretrained()]
        hint = suggest(name, choices if tag else open_clip.list_models())
        raise ModelError(f"Unknown model {name!r}. {hint} A model is {FORMS}.")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag not in tags:
        problem = f"Unknown weights {tag!r} of {architecture!r}." if tag else f"{architecture!r} names no weights."
        hint = suggest(tag, tags) if tags else "open_clip has none for it."
        raise ModelError(f"{problem} {hint} Write 'random:{architecture}' for a model without weights.")
    config = _architecture(architecture)
    if open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu", False):
        config["quick_gelu"] = True
    return Source(architecture, {"model_cfg": config}, tag=tag)


SCHEMES: dict[str, Callable[[str], Source]] = {"local-dir:": _folder, "hf-hub:": _hub, "random:": _random}


def _architecture(name: str) -> dict[str, Any]:
    if name not in open_clip.list_models():
        raise ModelError(f"Unknown architecture {name!r}. {suggest(name, open_clip.list_models())}")
    config: dict[str, Any] = open_clip.get_model_config(name)
    return config


def _create(source: Source) -> tuple[nn.Module, dict[str, Any]]:
    fetched = source.tag is not None
    shown = f"{source.name}/{source.tag}" if source.tag else source.name
    with torch.random.fork_rng(devices=[]), fetching(shown), torch.inference_mode(False):
        torch.manual_seed(source.seed or 0)
        model: nn.Module = open_clip.create_model(
            source.name,
            pretrained=source.tag or None,
            load_weights=fetched,
            force_quick_gelu=bool(source.config["model_cfg"].get("quick_gelu", False)),
            pretrained_text=False,
            require_pretrained=fetched,
        )
    if source.weights is not None:
        load_weights(model, read_state_dict(source.weights), repr(str(source.weights)))
    preprocess: dict[str, Any] = open_clip.get_model_preprocess_cfg(model)
    return model.eval(), preprocess


def _tokenizer(name: str) -> Callable[[], Tokenizer]:
    def make() -> Tokenizer:
        with _quiet(), fetching(name):
            tokenizer: Tokenizer = open_clip.get_tokenizer(name)
        return tokenizer

    return make


def chosen_device(device: str | torch.device) -> torch.device:
    """Return a device by name, ``auto`` as in ``load``; InputError for one that cannot be used."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"Unknown device {str(device)!r}. Give 'auto', 'cpu', 'cuda' or 'cuda:0'.") from error
    try:
        torch.zeros(1, device=chosen).item()
    except (AssertionError, NotImplementedError, RuntimeError) as error:  # torch has no one class for it
        reason = str(error).split("\n")[0].split(". ")[0].rstrip(".")
        raise InputError(
            f"The device {str(chosen)!r} cannot be used here: {reason}. Give 'auto', or 'cpu', which is always there."
        ) from error
    return chosen


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{str(path)!r} cannot be read as json: {error}.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{str(path)!r} holds no json object.")
    return content


@contextmanager
def fetching(name: str) -> Iterator[None]:
    """Turn whatever goes wrong while a model is made or fetched into one clear error."""
    try:
        yield
    except CloseupError:
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise ModelError(
            f"The model {name!r} could not be fetched or made: {reason}. "
            "Without a network, give a folder or a file with the weights."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip from logging what is done here on purpose, or said by the error that is raised."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.ERROR))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="QuickGELU mismatch")
            yield
    finally:
        logging.disable(before)
