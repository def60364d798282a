"""CLIP in, joint-space features out: towers by family, routes, names and checkpoints."""

from __future__ import annotations

from closeup.models.blend import blend as blend
from closeup.models.checkpoint import read_state_dict as read_state_dict
from closeup.models.checkpoint import save_local_dir as save_local_dir
from closeup.models.clip import Clip as Clip
from closeup.models.levels import with_levels as with_levels
from closeup.models.load import load as load
from closeup.models.preprocess import POLICIES as POLICIES
from closeup.models.preprocess import Preprocess as Preprocess
from closeup.models.routes import ROUTES as ROUTES
from closeup.models.routes import get_route as get_route
from closeup.models.tower import ImageTower as ImageTower
