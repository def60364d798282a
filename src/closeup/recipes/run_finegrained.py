"""One training of a matcher from its options to a folder: embed once, warm up, fine-tune, keep the best."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from accelerate import PartialState
from safetensors.torch import load_file

from closeup.data.fgovd import FgOvd
from closeup.data.karpathy import Karpathy
from closeup.data.readable import open_train
from closeup.data.record import Reader
from closeup.data.registry import open_reader
from closeup.data.spec import DEFAULT_SPLIT, at_split, split_spec
from closeup.errors import CloseupError, ConfigError, InputError, suggest
from closeup.match.matcher import Matcher, Seen
from closeup.match.matcher_file import TEXTS, save_matcher
from closeup.match.matchers import new_matcher
from closeup.models.clip import Clip
from closeup.models.levels import ClipWithLevels, with_levels
from closeup.models.load import load
from closeup.recipes.config import TrainConfig
from closeup.recipes.embed_features import Dense, embed_features, regions_with_wrong, whole_pictures
from closeup.recipes.features import Features
from closeup.recipes.finegrained import BEST, FineTune, WarmUp, best_rank, cosine_like, held_scores, mean_rank
from closeup.recipes.finegrained_config import PRESETS, FineGrainedConfig, FineGrainedSettings, stage_changed
from closeup.recipes.run_adapt import Adapted
from closeup.recipes.runs import check_output, check_same, read_card, run_folder, surroundings, write_card
from closeup.recipes.state import has_state
from closeup.recipes.train import train
from closeup.text.cache import content_key

Watch: TypeAlias = Callable[[str], AbstractContextManager[Callable[[int, int], object]]]
"""Opens a progress bar: told how much is done, and of how much."""

WARMED_UP = "warmed-up"
"""The matcher after its first stage, beside the log."""

MANY = 2**20
"""Items, where it is not yet known how many there are."""

SHARED = ("seed", "batch_size", "precision")
"""What the first stage has of the second's changes."""

LEARNED, HELD = "training_sets", "validation_sets"
"""Folders of FG-OVD."""

FIRST = 64
"""Records among which one must say something, so that data without captions is told before all of it is read."""

SCALED = 4096
"""Items that the factor is fitted to."""

SCALES = torch.logspace(0, 3, 301)
"""Among which the factor on scores is looked for that makes probabilities of them."""


@dataclass(frozen=True, slots=True)
class MatcherTraining:
    """What a matcher is trained on, and how: all that it takes to do it again.

    ``regions`` is a data set of described regions with wrong captions, ``pairs`` one with captions of whole pictures,
    for the warm-up and for ``keep``; both at their split ``train`` unless their lines say otherwise. ``held`` are the
    regions that the best weights are chosen on (None: those of ``regions`` at its split val; of FG-OVD's
    ``training_sets`` those in ``validation_sets`` beside them). ``config``, ``training`` and ``warmup`` are changes to
    the preset's matcher, to its second stage and to its first, which also has the second's seed, batch and precision;
    ``warmup`` None leaves the first stage out.
    """

    regions: str
    pairs: str | None = None
    held: str | None = None
    model: str = "tiny"
    preset: str = "paper"
    config: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    warmup: Mapping[str, Any] | None = field(default_factory=dict)
    features: Path | None = None
    """A folder that keeps embeddings, also for other trainings; beside the log unless given."""
    workers: int = 2
    """Threads that read pictures ahead, while embeddings are made."""
    dtype: Literal["fp32", "fp16"] = "fp32"
    """Numbers of the saved weights."""


def train_matcher(
    wanted: MatcherTraining,
    out: str | Path,
    *,
    resume: bool = False,
    watch: Watch = lambda what: nullcontext(lambda done, every: None),
) -> Adapted:
    """Train a matcher in both stages and save that of the best rank at ``out``; the log is in ``out`` with ``-run``.

    Embeddings are made first, once, by one process, and kept (many pictures are best embedded before, by a run of one
    process with ``features``): they are gone on with in any case, a training that was begun only if
    ``resume``. A finished one is saved again.

    Raises:
        InputError: unknown names, a data set that is missing or says nothing of this kind, an ``out`` that is no folder
            for a matcher, a training there that is not to be resumed, or none where one is.
        ConfigError: settings outside their range, or other ones than those of the training that is resumed.
        DataError: records without what is learned.
        ModelError: the model is unknown.
        CloseupError: a file cannot be written; what was saved before stays.
    """
    out = Path(out)
    check_output(out)
    settings = _settings(wanted, MANY, MANY)
    readers = _readers(wanted, settings)
    here = PartialState(cpu=not torch.accelerator.is_available())
    clip = load(wanted.model, device=here.device)
    config = settings.config
    view = with_levels(clip, config.levels)
    torch.manual_seed(settings.regions.seed)
    seen = (
        Seen(view.levels, view.details, images=clip.fingerprint, how=config.how)
        if isinstance(view, ClipWithLevels)
        else None
    )
    matcher = new_matcher(config.kind, clip.dim, hidden=config.hidden, inputs=config.inputs, seen=seen)
    card = {
        "recipe": FineTune.name,
        "base": {"name": wanted.model, "fingerprint": clip.fingerprint},
        "data": {name: _told(line, reader) for name, (line, reader) in readers.items()},
        "preset": wanted.preset,
        "config": config.to_dict(),
        "changes": {
            "training": dict(wanted.training),
            "warmup": None if wanted.warmup is None else dict(wanted.warmup),
        },
    }
    clip_card = {TEXTS: clip.text_fingerprint}
    run = run_folder(out)
    begun = is_begun(out)
    here.wait_for_everyone()  # nobody writes what another is yet to look for
    if begun and not resume:
        raise InputError(f"{str(run)!r} holds a training already. Resume it, or choose another folder.")
    if resume and not run.exists():
        raise InputError(f"There is no training to resume in {str(run)!r}. Begin one, or name its folder.")
    if begun:
        check_same(read_card(run), card, out)
    with here.main_process_first():
        features = {
            name: _embedded(wanted, view, run / "features", name, line, reader, config, watch)
            for name, (line, reader) in readers.items()
        }
    here.wait_for_everyone()
    if not begun and here.is_main_process:  # not before, so that what cannot be learned from leaves no training
        with _writing(run, run):
            write_card(run, {**card, **surroundings()})
    pairs, regions, held = features.get("pairs"), features["regions"], features["held"]
    settings = _settings(wanted, len(pairs) if pairs else 1, len(regions))
    if seen is not None:
        seen.learn(*regions.usual())
    start = mean_rank(matcher, held)
    if settings.pairs is not None and pairs is not None:
        seed = settings.pairs.seed
        _stage(WarmUp(matcher, pairs, held, config, seed=seed), settings.pairs, run / "pairs")
        if here.is_main_process:
            with _writing(run / WARMED_UP, run):
                save_matcher(matcher, run / WARMED_UP, {"trained": card, **clip_card, **surroundings()})
    warm = mean_rank(matcher, held)
    stage = run / "regions"
    stage.mkdir(parents=True, exist_ok=True)
    if here.is_main_process and not has_state(stage):
        # Of a training that never came to save its state, and may have had other settings.
        (stage / BEST).unlink(missing_ok=True)
    here.wait_for_everyone()
    recipe = FineTune(matcher, regions, held, config, pairs=pairs, seed=settings.regions.seed, best=stage)
    _stage(recipe, settings.regions, stage)
    here.wait_for_everyone()
    matcher.load_state_dict(load_file(stage / BEST))
    matcher.scale = best_scale(matcher, held)
    cosine = mean_rank(cosine_like(matcher), held)
    figures = {"rank": best_rank(stage), "cosine": cosine, "untrained": start, "warmed_up": warm}
    if here.is_main_process:
        stages = {"pairs": settings.pairs and asdict(settings.pairs), "regions": asdict(settings.regions)}
        told = {"trained": card, **clip_card, **stages, "figures": figures, **surroundings()}
        with _writing(out, run):
            save_matcher(matcher.eval(), out, told, dtype=wanted.dtype)
    return Adapted(out, figures, here.is_main_process)


@contextmanager
def _writing(place: Path, run: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CloseupError(
            f"Cannot write to {place}: {error.strerror or error}. What was learned is kept in {run}: free some space, "
            "then resume."
        ) from error


def _told(line: str, reader: Reader) -> str:
    """Return a line with what its file holds, so that another file of the name is another data set."""
    if not isinstance(reader, FgOvd | Karpathy):
        return line
    return f"{line} (sha256 {sha256(reader.path.read_bytes()).hexdigest()[:16]})"


def is_begun(out: Path) -> bool:
    """Tell whether a training of a matcher to ``out`` was begun, so that it can be resumed."""
    return bool(read_card(run_folder(out)))


def best_scale(matcher: Matcher, held: Features) -> float:
    """Return the factor on scores whose softmax over each region's captions gives the right one the most likelihood.

    A matcher's scores lie closer together than cosines, so CLIP's own factor would make no probabilities of them.
    """
    scores = held_scores(matcher, held, SCALED)
    right = scores.new_zeros(len(scores), dtype=torch.long)
    costs = torch.stack([F.cross_entropy(scale * scores, right) for scale in SCALES])
    return float(SCALES[costs.argmin()])


def _settings(wanted: MatcherTraining, pairs: int, regions: int) -> FineGrainedSettings:
    if wanted.preset not in PRESETS:
        raise InputError(f"Unknown preset {wanted.preset!r}. {suggest(wanted.preset, PRESETS)}")
    config, warm, fine = PRESETS[wanted.preset](pairs, regions)
    if warm is None and wanted.warmup:
        raise ConfigError(
            f"The preset {wanted.preset!r} has no warm-up to change: leave {', '.join(wanted.warmup)} out."
        )
    if warm is not None:
        shared = {name: wanted.training[name] for name in SHARED if name in wanted.training}
        warm = None if wanted.warmup is None else stage_changed(warm, pairs, {**shared, **wanted.warmup})
    return FineGrainedSettings(config.changed(wanted.config), warm, stage_changed(fine, regions, wanted.training))


def held_line(wanted: MatcherTraining) -> str:
    """Return the data set of the regions that the best weights are chosen on.

    Raises:
        InputError: none is named, and which belong to the learned ones cannot be told.
    """
    if wanted.held is not None:
        return wanted.held
    kind, place, options = split_spec(wanted.regions)
    if kind == "fgovd" or Path(place).suffix == ".json":
        parts = Path(place).parts
        if LEARNED not in parts:
            raise InputError(
                f"{wanted.regions}: FG-OVD's {LEARNED} have regions to hold out in {HELD} beside them, and this is none"
                " of them. Name regions as `held` (--held)."
            )
        beside = Path(*(HELD if part == LEARNED else part for part in parts))
        told = "&".join(f"{name}={value}" for name, value in options.items())
        return f"{kind}:{beside}?{told}" if told else f"{kind}:{beside}"
    if options.get("split") == DEFAULT_SPLIT:
        raise InputError(
            f"{wanted.regions}: the split {DEFAULT_SPLIT} is what is held out unless told otherwise, and it is to be"
            " learned. Name other regions as `held` (--held)."
        )
    return at_split(wanted.regions, DEFAULT_SPLIT)


def _readers(wanted: MatcherTraining, settings: FineGrainedSettings) -> dict[str, tuple[str, Reader]]:
    """Return what must be embedded, by name, with the line that it is known by."""
    config, warm, _ = settings
    if config.keep and warm is not None:
        raise ConfigError("`keep` keeps the cosine's rankings, and a warm-up undoes them: leave one of the two out.")
    needed = warm is not None or bool(config.keep)
    if needed and wanted.pairs is None:
        why = "keeps rankings" if config.keep else "warms up"
        raise InputError(f"The preset {wanted.preset!r} {why} on captions of whole pictures. Name some as `pairs`.")
    held = held_line(wanted)
    found = {"regions": (wanted.regions, open_train(wanted.regions)), "held": (held, open_reader(held))}
    if needed and wanted.pairs is not None:
        found["pairs"] = (wanted.pairs, open_train(wanted.pairs))
    for name, (line, reader) in found.items():
        _check_said(line, reader, whole=name == "pairs")
    return found


def _check_said(line: str, reader: Reader, *, whole: bool) -> None:
    """Raise InputError where none of the first records has what is learned from, before all are looked at."""
    first = (reader[index] for index in range(min(len(reader), FIRST)))
    if any(record.captions if whole else record.descriptions for record in first):
        return
    raise InputError(
        f"{line}: its pictures have no captions. Give some that do, such as karpathy:FOLDER?split=train or world."
        if whole
        else f"{line}: it describes no regions. Give some with wrong captions, such as"
        " fgovd:FOLDER/training_sets?split=1_attributes or world?negatives=1_attributes."
    )


def _embedded(
    wanted: MatcherTraining,
    clip: Clip,
    beside: Path,
    name: str,
    line: str,
    reader: Reader,
    config: FineGrainedConfig,
    watch: Watch,
) -> Features:
    whole = name == "pairs"
    told = {"records": _told(line, reader), "split": "val" if name == "held" else "train", "count": len(reader)}
    enlarge = 1.0 if whole else config.enlarge
    captions = 1 if whole else 1 + config.wrong
    take = whole_pictures if whole else regions_with_wrong(config.wrong)
    dense = Dense(config.size, unit=config.inputs == "unit") if config.how == "dense" and not whole else None
    more: list[object] = [asdict(dense)] if dense is not None else []
    more += [clip.levels] if isinstance(clip, ClipWithLevels) else []
    place = f"{name}-{content_key(told, clip.fingerprint, enlarge, captions, *more)[:16]}"
    folder = (wanted.features or beside) / place
    with watch(f"embedding {name}") as tell:
        return embed_features(
            clip,
            reader,
            take,
            folder,
            told=told,
            captions=captions,
            enlarge=enlarge,
            dense=dense,
            workers=wanted.workers,
            on_progress=tell,
        )


def _stage(recipe: WarmUp | FineTune, config: TrainConfig, folder: Path) -> None:
    train(recipe, config, folder, resume=has_state(folder))
