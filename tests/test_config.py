from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeup.config import Config
from closeup.errors import ConfigError


@dataclass(frozen=True)
class Optimiser(Config):
    rate: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True)
class Recipe(Config):
    steps: int
    loss: Literal["cosine", "l2"] = "cosine"
    optimiser: Optimiser = field(default_factory=Optimiser)
    blocks: tuple[int, ...] = ()
    name: str | None = None
    seed: int | str = 0
    folder: Path = Path("out")
    weights: Mapping[str, float] = field(default_factory=dict)
    half: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps is {self.steps}; at least 1 is needed.")


FULL: dict[str, object] = {
    "steps": 7,
    "loss": "l2",
    "optimiser": {"rate": 1, "betas": [0.5, 0.9]},
    "blocks": [3, 5],
    "name": "mine",
    "seed": "many",
    "folder": "a/b",
    "weights": {"box": 2},
    "half": True,
}


def test_json_values_become_fields() -> None:
    recipe = Recipe.from_dict(FULL)
    assert recipe == Recipe(
        7, "l2", Optimiser(1.0, (0.5, 0.9)), (3, 5), "mine", "many", Path("a/b"), {"box": 2.0}, True
    )
    assert isinstance(recipe.optimiser.rate, float)


def test_there_and_back_through_json() -> None:
    recipe = Recipe.from_dict(FULL)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert Recipe.from_dict({"steps": 3}) == Recipe(3)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"stps": 1}, "Recipe has no key 'stps'. Did you mean 'steps'"),
        ({"optimiser": {"ratte": 1}}, "Optimiser has no key 'optimiser.ratte'. Did you mean 'rate'"),
        ({"steps": "7"}, r"steps must be int, but is '7' \(str\)"),
        ({"steps": 7.0}, "steps must be int"),
        ({"steps": True}, "steps must be int, but is True"),
        ({"steps": None}, "steps must be int, but is None"),
        ({"loss": "cosin"}, "loss cannot be 'cosin'. Did you mean 'cosine'"),
        ({"optimiser": {"rate": "fast"}}, "optimiser.rate must be float, but is 'fast'"),
        ({"optimiser": {"betas": [0.9]}}, "optimiser.betas needs 2 values"),
        ({"optimiser": 3}, "optimiser must be Optimiser"),
        ({"blocks": [1, "2"]}, r"blocks\[1\] must be int"),
        ({"blocks": 3}, "blocks must be"),
        ({"name": 3}, "name must be"),
        ({"seed": 1.5}, "seed must be"),
        ({"folder": 3}, "folder must be Path"),
        ({"weights": {"box": "x"}}, "weights.box must be float"),
        ({"weights": [1.0]}, "weights must be"),
        ({"half": 1}, "half must be bool"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_what_does_not_fit_is_named(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Recipe.from_dict({"steps": 1, **wrong})


def test_a_missing_value_is_named() -> None:
    with pytest.raises(ConfigError, match="'steps'"):
        Recipe.from_dict({})


def test_replace_checks_as_from_dict_does() -> None:
    recipe = Recipe.from_dict(FULL)
    changed = recipe.replace(steps=9, name=None, optimiser=Optimiser(2.0))
    assert (changed.steps, changed.name, changed.optimiser.rate, changed.blocks) == (9, None, 2.0, (3, 5))
    assert recipe.steps == 7
    with pytest.raises(ConfigError, match="blocks"):
        recipe.replace(blck=[1])
    with pytest.raises(ConfigError, match="steps must be int"):
        recipe.replace(steps="9")


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe(1).steps = 2  # type: ignore[misc]


@given(st.integers(1), st.floats(allow_nan=False), st.lists(st.integers()))
def test_the_hash_is_a_function_of_the_values(steps: int, rate: float, blocks: list[int]) -> None:
    recipe = Recipe.from_dict({"steps": steps, "optimiser": {"rate": rate}, "blocks": blocks})
    assert recipe.hash == Recipe.from_dict(recipe.to_dict()).hash
    assert recipe.hash != recipe.replace(steps=steps + 1).hash


def test_the_hash_is_the_same_in_another_process() -> None:
    script = (
        "from closeup.config import Config\nfrom dataclasses import dataclass\n"
        "@dataclass(frozen=True)\nclass Optimiser(Config):\n"
        "    rate: float = 1e-5\n    betas: tuple[float, float] = (0.9, 0.999)\nprint(Optimiser().hash)"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == Optimiser().hash
