"""Pages for people: PDF and pictures of text, in every script, by Typst with the fonts of this installation.

Fonts of the machine are never used, so the same data give the same bytes wherever the same packages are installed.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typst
from PIL import Image

from gateway.domain.errors import ServiceUnavailable

_FONTS = ("manimgx_fonts", "manimgx_fonts_cjk")
_TEMPLATES = Path(__file__).parent
_PIXELS_PER_INCH = 72.0  # one pixel is one point of the template


def pdf(template: str, data: Mapping[str, Any], pictures: Mapping[str, bytes], timestamp: int) -> bytes:
    """A PDF/A-2b document; ``timestamp`` in seconds since the epoch is all it knows of time."""
    return bytes(_compile(template, data, pictures, format="pdf", pdf_standards=["a-2b"], timestamp=timestamp))


def pictures(template: str, data: Mapping[str, Any]) -> list[Image.Image]:
    """Each page as a picture of red, green, blue and opacity."""
    pages = _compile(template, data, {}, format="png", ppi=_PIXELS_PER_INCH)
    return [Image.open(io.BytesIO(page)).convert("RGBA") for page in _listed(pages)]


def _compile(template: str, data: Mapping[str, Any], files: Mapping[str, bytes], **options: Any) -> Any:
    with TemporaryDirectory(prefix="hilum-page-") as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        Path(folder, "data.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
        main = Path(folder, "main.typ")
        main.write_bytes((_TEMPLATES / f"{template}.typ").read_bytes())
        return typst.compile(main, root=folder, font_paths=fonts(), **options)


def _listed(pages: Any) -> list[bytes]:
    return [bytes(page) for page in pages] if isinstance(pages, list) else [bytes(pages)]


@cache
def fonts() -> typst.Fonts:
    """The fonts of this installation, read once; raises ServiceUnavailable where they are missing."""
    folders: list[str] = []
    for name in _FONTS:
        package = find_spec(name)  # font files only; nothing of it is imported
        if package is None or not package.submodule_search_locations:
            raise ServiceUnavailable(f"the fonts for reports are missing: pip install {name.replace('_', '-')}")
        folders.append(package.submodule_search_locations[0])
    return typst.Fonts(font_paths=folders, include_system_fonts=False, include_embedded_fonts=True)
