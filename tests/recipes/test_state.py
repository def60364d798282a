"""The saved state: everything that the next step depends on."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from closeup.recipes.state import SavedState, load_state, save_state


def scaler(scale: float) -> torch.amp.GradScaler:
    made = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=3)
    made.scale(torch.ones(()))  # the scale is made at its first use
    return made


def test_the_scale_of_half_precision_goes_on_where_it_was(tmp_path: Path) -> None:
    module = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    before = scaler(1024.0)
    before.scale(module(torch.tensor([torch.inf, 0.0])).sum()).backward()
    before.step(optimizer)
    before.update()
    assert before.get_scale() == 512
    save_state(tmp_path, module, [optimizer], SavedState(1, {}), scaler=before)
    after = scaler(65536.0)
    load_state(tmp_path, module, [optimizer], scaler=after)
    assert after.state_dict() == before.state_dict()


def test_a_state_without_a_scale_leaves_it_as_it_begins(tmp_path: Path) -> None:
    module = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    save_state(tmp_path, module, [optimizer], SavedState(1, {}))
    fresh = scaler(4.0)
    load_state(tmp_path, module, [optimizer], scaler=fresh)
    assert fresh.get_scale() == 4
