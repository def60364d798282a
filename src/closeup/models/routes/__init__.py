"""Routes: how the last attention block is replaced to keep features local; one file each."""

from __future__ import annotations

from closeup.models.routes.attention import AttentionRoute as AttentionRoute
from closeup.models.routes.base import Block as Block
from closeup.models.routes.base import Grid as Grid
from closeup.models.routes.base import Heads as Heads
from closeup.models.routes.base import Route as Route
from closeup.models.routes.base import Tokens as Tokens
from closeup.models.routes.registry import ROUTES as ROUTES
from closeup.models.routes.registry import get_route as get_route
from closeup.models.routes.value import ValueRoute as ValueRoute
from closeup.models.routes.value_cls_residual import ValueClsResidualRoute as ValueClsResidualRoute
