"""The API's process: uvicorn with uvloop and httptools, one process, a graceful end."""

from __future__ import annotations

import gc
import signal
from types import FrameType
from typing import Final

import structlog
import uvicorn

from api.app import Application, create_app
from ops.logs import configure_logs
from ops.settings import Settings

DRAIN_S: Final = 12  #: for requests under way at SIGTERM; the parts have the rest of 20 s
CONNECTIONS_WAITING_MAX: Final = 2048

log = structlog.get_logger()


class Server(uvicorn.Server):
    """Says that it is not ready before it stops to listen."""

    def __init__(self, config: uvicorn.Config, app: Application) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        services = getattr(self._app.state, "services", None)
        if services is not None:
            services.draining = True
        log.info("stopping", signal=signal.Signals(sig).name)
        super().handle_exit(sig, frame)


def main(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are answered, then the parts stop.

    A start that fails ends it with a status.
    """
    configure_logs(level=settings.log_level, format_=settings.log_format)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=CONNECTIONS_WAITING_MAX,
        timeout_graceful_shutdown=DRAIN_S,
    )
    server = Server(config, app)
    gc.collect()
    gc.freeze()  # what is loaded by now lives as long as the process: no collection needs to look at it
    server.run()
    if not server.started:
        raise SystemExit(1)  # uvicorn itself leaves with 3 when a part or the port fails
