"""The dashboard in a browser on this machine, through textual-serve (extra `serve`).

Whoever reaches the port may stop the run: it listens on localhost only, and other web pages that
a browser shows may not use it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from aiohttp import web
from textual_serve.server import Server

from dreamer_async.launch import dashboard_command, environment
from dreamer_async.run_dir import RunDir

HOSTS = ("localhost", "127.0.0.1")
"""What a browser may have been told; any other name may be somebody's who points it here."""


class LocalServer(Server):
    """Gives its keyboard to nobody but the page that it served itself."""

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Connect a dashboard with a browser, after a look at whose page asks."""
        ours = {f"{host}:{self.port}" for host in HOSTS}
        origin = request.headers.get("Origin")  # programs send none; they are this machine's
        if request.host not in ours or origin not in (None, *(f"http://{host}" for host in ours)):
            raise web.HTTPForbidden(text="this dashboard is for its own page only")
        return await super().handle_websocket(request)


def serve_dashboard(runs: Sequence[RunDir], options: Sequence[str], port: int) -> int:
    """Serve the dashboard to browsers on this machine until interrupted."""
    os.environ.update(environment())  # textual-serve starts one dashboard for each browser
    line = shlex.join(dashboard_command(*runs, options=[*options, "--web"]))
    LocalServer(line, host="localhost", port=port, title=f"dreamer-async {runs[0].name}").serve()
    return 0
