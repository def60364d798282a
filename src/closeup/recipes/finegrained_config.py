"""The settings of fine-grained matching, and the paper's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from math import ceil
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from closeup.config import Config
from closeup.errors import ConfigError, suggest
from closeup.match.losses import HINGE_MARGIN, TRIPLET_MARGIN
from closeup.match.matcher import Inputs, Normalisation
from closeup.match.matchers import KINDS, LAYERED, LOOKING
from closeup.recipes.config import TrainConfig

Objective: TypeAlias = Literal["hinge", "softmax"]


@dataclass(frozen=True)
class FineGrainedConfig(Config):
    """A matcher, and the losses of its two stages. Defaults are the paper's, but for the corrected normalisation.

    Raises:
        ConfigError: a value outside its range.

    Source: FG-CLIP (Bianchi et al., ``lorebianchi98/FG-CLIP`` ``configs/train``).
    """

    kind: str = "linear"
    """The matching function, as ``match.new_matcher`` knows it."""
    hidden: int | None = None
    """Width between the layers of "mlp" and "residual-mlp"; that of the embeddings, and four times it, unless given."""
    inputs: Inputs = "raw"
    """What the matcher is given: embeddings as the towers give them, as in the official code, or of length one."""
    wrong: int = 10
    """Wrong captions of a region; a region with fewer is left out."""
    how: Literal["crop", "dense"] = "crop"
    """The region encoder: cut out, as in the paper, or pooled from the dense map."""
    size: int | None = None
    """Longest side of the pictures for the dense map, in pixels; the model's own size unless given."""
    levels: tuple[int, ...] = ()
    """Blocks of the image tower after which the matcher looks at it too, besides the embedding; none in the paper."""
    enlarge: float = 1.0
    """Factor by which regions are enlarged before they are cut out."""
    pair_margin: float = TRIPLET_MARGIN
    """By how much the score of a picture and its caption must exceed others, in the warm-up."""
    margin: float = HINGE_MARGIN
    """By how much the score of the right caption must exceed those of wrong ones."""
    hardest: bool = False
    """Count the worst wrong captions alone, in both stages."""
    objective: Objective = "hinge"
    """How wrong captions are kept down: beyond a margin, as in the paper, or by a softmax over all captions of the
    region, which learns from every one of them."""
    sharpness: float = 20.0
    """What cosines are multiplied by before that softmax, and before those which ``keep`` compares; scores that are a
    sigmoid of a cosine rise a quarter as fast, and are multiplied by four times as much."""
    normalisation: Normalisation = "features"
    """Along what captions have length one in fine-tuning; "captions" is the official code's, which evaluates along
    features."""
    keep: float = 0.0
    """Weight of what keeps whole pictures and their captions ranked as the cosine ranks them; 0: not at all, as in the
    paper. Not with a warm-up, which ranks them anew."""

    def __post_init__(self) -> None:
        learned = [kind for kind in KINDS if kind != "cosine"]
        if self.kind not in learned:
            said = "has nothing to learn." if self.kind == "cosine" else "is unknown."
            raise ConfigError(f"The matcher {self.kind!r} {said} {suggest(self.kind, learned)}")
        chosen = {
            "inputs": Inputs,
            "objective": Objective,
            "normalisation": Normalisation,
            "how": Literal["crop", "dense"],
        }
        for name, choices in chosen.items():
            if getattr(self, name) not in get_args(choices):
                known = ", ".join(get_args(choices))
                raise ConfigError(f"`{name}` must be one of {known}, but got {getattr(self, name)!r}.")
        if self.hidden is not None and (self.hidden < 1 or self.kind not in LAYERED):
            raise ConfigError(f"`hidden` is {self.hidden}: give 1 or more, for {' and '.join(LAYERED)} alone.")
        self._check_looks()
        if self.normalisation == "captions" and self.kind == "attention":
            raise ConfigError("`normalisation` 'captions' is of cosines, and the matcher 'attention' takes none.")
        for name in ("wrong", "enlarge", "sharpness"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"`{name}` must be above 0, but got {getattr(self, name)}.")
        for name in ("pair_margin", "margin", "keep"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"`{name}` must not be negative, but got {getattr(self, name)}.")

    def _check_looks(self) -> None:
        if self.levels and self.kind not in LOOKING:
            raise ConfigError(f"`levels` are for {', '.join(LOOKING)}, and the matcher is {self.kind!r}.")
        if self.size is not None and (self.size < 1 or self.how != "dense"):
            raise ConfigError(f"`size` is {self.size}: give pixels, 1 or more, for the dense map alone (`how`).")
        if self.enlarge != 1 and self.how != "crop":
            raise ConfigError(f"`enlarge` is {self.enlarge}, and {self.how!r} cuts nothing out. Leave it at 1.")

    def changed(self, changes: Mapping[str, Any]) -> FineGrainedConfig:
        """Return it with some settings changed; another kind has no width between layers where it has no such layers.

        Raises:
            ConfigError: an unknown setting, or a value of another type or outside its range.
        """
        bare = changes.get("kind", self.kind) not in LAYERED and "hidden" not in changes
        return self.replace(**({"hidden": None} if bare else {}), **changes)


class FineGrainedSettings(NamedTuple):
    """A preset: the matcher and its losses, and the two stages; ``pairs`` None leaves the warm-up out."""

    config: FineGrainedConfig
    pairs: TrainConfig | None
    regions: TrainConfig


def paper(pairs: int, regions: int) -> FineGrainedSettings:
    """Return the paper's two stages: 10 epochs of batches of 256 each, Adam at 5e-5 and then at 1e-5."""
    return FineGrainedSettings(
        FineGrainedConfig(), adam(pairs, rate=5e-5, epochs=10), adam(regions, rate=1e-5, epochs=10)
    )


def tiny(pairs: int, regions: int) -> FineGrainedSettings:
    """Return what suits the width of tiny and little data: the paper's stages at a higher rate."""
    return FineGrainedSettings(
        FineGrainedConfig(), adam(pairs, rate=1e-3, epochs=10), adam(regions, rate=1e-3, epochs=10)
    )


def keeping(pairs: int, regions: int) -> FineGrainedSettings:
    """Return a matcher that begins as the cosine and is kept from forgetting it; not in the paper."""
    config = FineGrainedConfig(kind="residual-mlp", inputs="unit", objective="softmax", keep=1.0)
    return FineGrainedSettings(config, None, adam(regions, rate=1e-3, epochs=10))


PRESETS: Mapping[str, Callable[[int, int], FineGrainedSettings]] = {"paper": paper, "tiny": tiny, "keep": keeping}
"""By name, each for a number of pairs and of regions."""


def adam(items: int, *, rate: float, epochs: int, batch: int = 256) -> TrainConfig:
    """Return Adam without decay, its rate falling to 0, evaluating once an epoch; a batch is at most all items."""
    batch = max(1, min(batch, items))
    epoch = ceil(items / batch)
    return TrainConfig(
        steps=epochs * epoch,
        batch_size=batch,
        rate=rate,
        weight_decay=0.0,
        betas=(0.9, 0.999),
        epsilon=1e-8,
        precision="fp32",
        workers=0,
        log_every=epoch,
        evaluate_every=epoch,
        save_every=5 * epoch,
    )


def stage_changed(preset: TrainConfig, items: int, changes: Mapping[str, Any]) -> TrainConfig:
    """Return a stage of ``adam`` with some settings changed; with another batch its epochs stay as many.

    Raises:
        ConfigError: an unknown setting, or a value outside its range.
    """
    known = {setting.name for setting in fields(preset)}
    unknown = [name for name in changes if name not in known]
    if unknown:
        raise ConfigError(f"A training has no setting {unknown[0]!r}.")
    made = replace(preset, **changes)
    if "batch_size" in changes:
        epochs = preset.steps // preset.log_every
        rhythm = adam(items, rate=made.rate, epochs=epochs, batch=made.batch_size)
        made = replace(rhythm, **{name: value for name, value in changes.items() if name != "batch_size"})
    return made
