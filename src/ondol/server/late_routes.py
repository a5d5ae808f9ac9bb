"""service: routes that are made when the first request comes to them: a pattern costs more than many a handler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Match, NoMatchFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.datastructures import URLPath
    from starlette.types import Receive, Scope, Send

__all__ = ["LateRoutes"]


class LateRoutes(BaseRoute):
    """Some routes, as one: for the router it is whichever of them fits the request."""

    def __init__(self, prefixes: tuple[str, ...], make: Callable[[], list[BaseRoute]]) -> None:
        """Remember how they are made; only paths that begin with one of ``prefixes`` can be theirs."""
        self._prefixes = prefixes
        self._make = make
        self._made: list[BaseRoute] | None = None

    def made(self) -> list[BaseRoute]:
        """Return them, made at the first call."""
        if self._made is None:
            self._made = self._make()
        return self._made

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return the match of the first route that fits, else of the first whose path does."""
        partial: tuple[Match, Scope] = (Match.NONE, {})
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or not path.startswith(self._prefixes):
            return partial
        for route in self.made():
            match, child_scope = route.matches(scope)
            found = {**child_scope, "route": route}
            if match is Match.FULL:
                return match, found
            if match is Match.PARTIAL and partial[0] is Match.NONE:
                partial = match, found
        return partial

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the route that was found answer."""
        route: BaseRoute = scope["route"]
        await route.handle(scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: object) -> URLPath:
        """Return no path: nobody asks for these by name."""
        raise NoMatchFound(name, dict(path_params))
