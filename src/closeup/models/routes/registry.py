"""The list of routes by name."""

from __future__ import annotations

from closeup.errors import InputError, suggest
from closeup.models.routes.attention import AttentionRoute
from closeup.models.routes.base import Route
from closeup.models.routes.value import ValueRoute
from closeup.models.routes.value_cls_residual import ValueClsResidualRoute

ROUTES: dict[str, Route] = {
    "value": ValueRoute(),
    "maskclip": ValueRoute(),
    "attention": AttentionRoute(),
    "value-cls-residual": ValueClsResidualRoute(),
}
"""``maskclip`` is the value route by its other name: on ViTs the two papers write the same arithmetic."""


def get_route(route: str | Route) -> Route:
    """Return the route of that name, or the object itself; InputError for an unknown name, or for no route at all."""
    if isinstance(route, str):
        if route not in ROUTES:
            raise InputError(f"Unknown route {route!r}. {suggest(route, ROUTES)}")
        return ROUTES[route]
    if not isinstance(route, Route):
        raise InputError(f"The route {route!r} is neither a name nor a Route. {suggest('', ROUTES)}")
    return route
