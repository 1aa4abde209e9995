"""OHIF's own files, with a configuration that points it at our DICOMweb on the same origin."""

from __future__ import annotations

import base64
import hashlib
import json
import mimetypes
import re
import sys
from http import HTTPStatus
from pathlib import Path

from starlette.responses import FileResponse, Response

from gateway.web.links import DICOMWEB, VIEWER
from gateway.web.problem import Refused

OHIF_VERSION = "3.13.2"
_HASHED = re.compile(r".*\.[0-9a-f]{16}\.js|[0-9a-f]{16}\.(wasm|woff2)")  # the name changes with the content
_INLINE = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
mimetypes.add_type("application/wasm", ".wasm")
mimetypes.add_type("font/woff2", ".woff2")
mimetypes.add_type("text/javascript", ".js")

# OHIF makes functions out of text when it loads a SEG (its n-dimensional arrays do): without 'unsafe-eval' none is shown.
_CONTENT_SECURITY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval'{inline}; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


def default_directory() -> Path:
    """Where `hilum viewer install` puts OHIF, and where it is looked for."""
    return Path(sys.prefix) / "share" / "hilum" / f"ohif-{OHIF_VERSION}"


def configuration(qido: str = DICOMWEB, wado: str = DICOMWEB, name: str = "Hilum") -> str:
    """`app-config.js` of OHIF."""
    source = {
        "friendlyName": name,
        "name": "hilum",
        "qidoRoot": qido,
        "wadoRoot": wado,
        "qidoSupportsIncludeField": True,
        "imageRendering": "wadors",
        "thumbnailRendering": "wadors",
        "enableStudyLazyLoad": True,
        "supportsFuzzyMatching": False,
        "supportsWildcard": True,
        "omitQuotationForMultipartRequest": True,
        "bulkDataURI": {"enabled": True},
    }
    config = {
        "routerBasename": VIEWER,
        "extensions": [],
        "modes": [],
        "customizationService": {},
        "showStudyList": True,
        "maxNumberOfWebWorkers": 2,
        "showWarningMessageForCrossOrigin": False,
        "showCPUFallbackMessage": True,
        "showLoadingIndicator": True,
        # Without questions, so that a link from a worklist opens with its overlay on.
        "disableConfirmationPrompts": True,
        "measurementTrackingMode": "simplified",
        "investigationalUseDialog": {"option": "configure", "days": 365},
        "defaultDataSourceName": "hilum",
        "dataSources": [
            {
                "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
                "sourceName": "hilum",
                "configuration": source,
            }
        ],
    }
    return f"window.config = {json.dumps(config, indent=2)};\n"


class Viewer:
    """Serves the pages under `/viewer/`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()
        self._policy = ""

    @property
    def installed(self) -> bool:
        """Whether OHIF is there."""
        return (self._directory / "index.html").is_file()

    def _content_security(self) -> str:
        """The policy, with the digests of the page's own inline scripts."""
        if not self._policy:
            page = (self._directory / "index.html").read_bytes()
            digests = [base64.b64encode(hashlib.sha256(text).digest()).decode() for text in _INLINE.findall(page)]
            self._policy = _CONTENT_SECURITY.format(inline="".join(f" 'sha256-{one}'" for one in digests))
        return self._policy

    def page(self, path: str) -> Response:
        """A file of OHIF, or its one page for all that is none; raises Refused (404) where OHIF is not installed."""
        if not self.installed:
            fix = "run `hilum viewer install`, or point your own OHIF at our DICOMweb"
            raise Refused(HTTPStatus.NOT_FOUND, f"the viewer is not installed: {fix}")
        headers = {"Content-Security-Policy": self._content_security(), "Cache-Control": "no-cache"}
        if path == "app-config.js":
            headers["Cache-Control"] = "no-store"
            return Response(configuration(), headers=headers, media_type="text/javascript")
        file = (self._directory / path).resolve()
        if not path or not file.is_relative_to(self._directory) or not file.is_file():
            if "." in path.rpartition("/")[2]:
                raise Refused(HTTPStatus.NOT_FOUND, "the viewer has no such file")
            file = self._directory / "index.html"
        if _HASHED.fullmatch(file.name):
            headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return FileResponse(file, headers=headers)
