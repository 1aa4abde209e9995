"""`hilum viewer`: OHIF on what Hilum holds, or on another archive's DICOMweb, with images and pages from one origin."""

from __future__ import annotations

from pathlib import Path

from gateway.commands.web import web
from gateway.domain.errors import ConfigurationError
from gateway.observe.logs import configure
from gateway.settings import Settings, read_settings
from gateway.web import server
from gateway.web.beside import Beside
from gateway.web.install import install
from gateway.web.links import VIEWER, public_url
from gateway.web.pages import Viewer, default_directory


def view(config: Path | None, dicomweb: str) -> None:
    """Serves until SIGTERM or SIGINT. Raises ConfigurationError where OHIF is not installed."""
    settings = read_settings(config)
    pages = Viewer(_directory(settings))
    if not pages.installed:
        raise ConfigurationError("the viewer is not installed: run `hilum viewer install`")
    if not dicomweb:
        print(f"{public_url(settings.http)}{VIEWER}/", flush=True)
        web(config)
        return
    configure()
    app = Beside(pages, dicomweb, settings.http)
    listener = server.listen(settings.http)
    print(f"{public_url(settings.http, listener.getsockname()[1])}{VIEWER}/", flush=True)
    server.run(app, listener, settings.http)


def install_viewer(config: Path | None) -> str:
    """Installs OHIF; returns a sentence."""
    return f"OHIF is in {install(_directory(read_settings(config)))}"


def _directory(settings: Settings) -> Path:
    return settings.http.viewer_dir or default_directory()
