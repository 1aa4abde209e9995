"""Gets OHIF from npm, proves that it is the version that was tested, and keeps of it what is needed."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from gateway.domain.errors import ConfigurationError, ServiceUnavailable
from gateway.web.links import VIEWER
from gateway.web.pages import OHIF_VERSION

PACKAGE = f"@ohif/app@{OHIF_VERSION}"
INTEGRITY = "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
"""What npm says of this version (Subresource Integrity): other bytes are not installed."""

_ROOT = "package/dist/"
_LEFT_OUT = (
    "ort/",
    "dicom-microscopy-viewer/",
    "sw.js",
    "serve.json",
    "_headers",
    "_redirects",
    "google.js",
    "app-config.js",
)
"""Of 213 MB, 160 that nothing here uses: neural networks in the browser, microscopy, a service worker."""

_PUBLIC_PATH = re.compile(rb'__webpack_require__\.p = "/";')
_ABSOLUTE = re.compile(rb'((?:href|src)=")/(?!/)')
_LARGEST = 400 * 1024 * 1024  # bytes, unpacked


def install(directory: Path) -> Path:
    """Installs OHIF into a directory, which is replaced as a whole; does nothing where it is there. Returns it.

    Raises ServiceUnavailable where npm is missing or fails, ConfigurationError where the package is another one.
    """
    if (directory / "index.html").is_file():
        return directory
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
            package = _pack(Path(scratch))
            check(package)
            made = Path(scratch) / "made"
            unpack(package, made)
            shutil.rmtree(directory, ignore_errors=True)
            made.rename(directory)
    except OSError as error:
        raise ServiceUnavailable(f"the viewer cannot be installed in {directory}: {error.strerror or error}") from error
    return directory


def _pack(directory: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise ServiceUnavailable("npm is not installed: apt-get install npm, then run `hilum viewer install` again")
    command = [npm, "pack", PACKAGE, "--pack-destination", str(directory), "--silent"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory, timeout=600)
    found = list(directory.glob("*.tgz"))
    if done.returncode != 0 or len(found) != 1:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ServiceUnavailable(f"npm could not get {PACKAGE}: {last}")
    return found[0]


def check(package: Path) -> None:
    """Raises ConfigurationError where a package does not have the pinned digest."""
    with package.open("rb") as file:
        found = "sha512-" + base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
    if found != INTEGRITY:
        raise ConfigurationError(
            f"{PACKAGE} is not what was tested: its digest is {found[:20]}..., not {INTEGRITY[:20]}..."
        )


def unpack(package: Path, to: Path) -> None:
    """Unpacks what is needed, moved from the root of a site to `/viewer/`."""
    left = _LARGEST
    with tarfile.open(package) as archive:
        for member in archive:
            name = member.name.removeprefix(_ROOT)
            if not member.isfile() or name == member.name or name.startswith(_LEFT_OUT) or name.endswith(".map"):
                continue
            left -= member.size
            target = (to / name).resolve()
            content = archive.extractfile(member)
            if left < 0 or content is None or not target.is_relative_to(to.resolve()):
                raise ConfigurationError(f"{PACKAGE} holds what it should not")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(moved(name, content.read()))
    # The page asks for it, to register a service worker that is not there.
    (to / "init-service-worker.js").write_text("", encoding="utf-8")


def moved(name: str, content: bytes) -> bytes:
    """A file whose absolute paths begin with `/viewer/`."""
    prefix = VIEWER.encode() + b"/"
    if name.endswith(".html"):
        content = _ABSOLUTE.sub(rb"\g<1>" + prefix, content)
        return content.replace(b'PUBLIC_URL="/"', b'PUBLIC_URL="' + prefix + b'"')
    if name == "manifest.json":
        return content.replace(b'"/', b'"' + prefix)
    if name.endswith(".js"):
        return _PUBLIC_PATH.sub(b'__webpack_require__.p = "' + prefix + b'";', content)
    return content.replace(b"url(/", b"url(" + prefix) if name.endswith(".css") else content
