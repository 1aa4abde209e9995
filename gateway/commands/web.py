"""`hilum web`: DICOMweb and the viewer's pages as a process of its own, alone or as a child of `hilum serve`."""

from __future__ import annotations

import socket
from pathlib import Path

from gateway import bootstrap
from gateway.commands.child import ChildProcess
from gateway.domain.errors import ServiceUnavailable
from gateway.observe.logs import configure, log
from gateway.settings import read_settings
from gateway.web import server
from gateway.web.access import read_tokens
from gateway.web.app import HTTP_ADDRESS
from gateway.web.links import DICOMWEB, VIEWER, public_url
from gateway.web.settings import HttpSettings

_GRACE = 15.0  # seconds


def web(config: Path | None, inherited: int | None = None) -> None:
    """Serves until SIGTERM or SIGINT; `inherited` is the descriptor of a port that is listened on already."""
    configure()
    settings = read_settings(config)
    listener = socket.socket(fileno=inherited) if inherited is not None else server.listen(settings.http)
    ledger = bootstrap.make_ledger(settings)
    try:
        ledger.close_lost(HTTP_ADDRESS)
        app, pixels = bootstrap.make_web(settings, ledger, bootstrap.make_spool(settings))
        base = public_url(settings.http, int(listener.getsockname()[1]))
        log(stage="web").info("listening", dicomweb=base + DICOMWEB, viewer=f"{base}{VIEWER}/")
        try:
            server.run(app, listener, settings.http)
        finally:
            pixels.close()
    finally:
        ledger.close()


class WebProcess:
    """The web process of `hilum serve`: its port is ours, so that it is taken before we are ready, and stays when it dies."""

    def __init__(self, config: Path | None, settings: HttpSettings) -> None:
        """Takes the port; raises ServiceUnavailable, and ConfigurationError where a file that it will need is wrong.

        Where nobody has asked for a port and the usual one is taken, another is used: images come in all the same.
        """
        self._config = config
        read_tokens(settings.tokens_file)
        self._listener = _listen(settings)
        self._child = ChildProcess()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._listener.getsockname()[1])

    @property
    def pid(self) -> int:
        """Process id; 0 before the start."""
        return self._child.pid

    def start(self) -> None:
        """Starts the process; it answers a second or two later, and connections wait until then."""
        options = ["--config", str(self._config)] if self._config else []
        number = self._listener.fileno()
        self._child.start("gateway.cli", ["web", *options, "--inherited", str(number)], [number])

    def revive(self) -> bool:
        """Starts it again when it has died, later each time it dies young; says whether it has."""
        if self._child.found_dead():
            log(stage="web").error("web process died", exit_status=self._child.exit_status)
        if not self._child.due:
            return False
        self.start()
        return True

    def stop(self) -> None:
        """Lets requests at hand end, and ends it if they do not."""
        self._child.terminate()
        self._child.wait(_GRACE)
        self._listener.close()


def _listen(settings: HttpSettings) -> socket.socket:
    try:
        return server.listen(settings)
    except ServiceUnavailable as error:
        if "port" in settings.model_fields_set:
            raise
        listener = server.listen(settings.model_copy(update={"port": 0}))
        port = listener.getsockname()[1]
        log(stage="web").warning("another port is used", port=port, reason=error.message)
        return listener
