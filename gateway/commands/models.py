"""`hilum models`: the bundles a site can run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from gateway.bundle.files import builtin_bundles, bundle_digest, read_manifest, resolve_bundle
from gateway.bundle.manifest import Manifest
from gateway.commands.console import console
from gateway.domain.errors import BundleInvalid, ConfigurationError
from gateway.settings import read_settings


def bundles(config: Path | None) -> Mapping[str, Path]:
    """Name -> bundle directory: the configured models, then what ships with Hilum under its own name."""
    configured = {
        name: resolve_bundle(entry.bundle, Path.cwd()) for name, entry in read_settings(config).models.items()
    }
    shipped = {read_manifest(path).name: path for path in builtin_bundles()}
    return {**{name: path for name, path in shipped.items() if name not in configured}, **configured}


def find(config: Path | None, name: str) -> Path:
    """The bundle of that name, or that directory; raises ConfigurationError."""
    known = bundles(config)
    same = [key for key in known if key.replace("-", "_") == name.replace("-", "_")]
    if same:
        return known[same[0]]
    if Path(name).is_dir() or name.startswith("builtin:"):
        return resolve_bundle(name, Path.cwd())
    raise ConfigurationError(f"no model is called {name!r}; known are {', '.join(sorted(known)) or 'none'}")


def list_models(config: Path | None, as_json: bool) -> None:
    """All bundles, one row each."""
    found = [_row(name, path) for name, path in bundles(config).items()]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("name", "version", "title", "takes", "puts out", "ready"):
        table.add_column(column, overflow="fold")
    for row in found:
        table.add_row(*(str(row[key]) for key in ("name", "version", "title", "takes", "puts_out", "ready")))
    console().print(table, markup=False)


def show_model(config: Path | None, name: str, as_json: bool) -> None:
    """One bundle's manifest and digest."""
    path = find(config, name)
    manifest = read_manifest(path)
    values = {"bundle": str(path), "digest": bundle_digest(path), **manifest.model_dump(mode="json")}
    if as_json:
        print(json.dumps(values, indent=2, ensure_ascii=False))
        return
    out = console()
    out.print(f"[bold]{manifest.title}[/bold] {manifest.version} ({manifest.license})")
    out.print(f"{manifest.intended_use}\n", markup=False)
    out.print_json(json.dumps(values, ensure_ascii=False))


def verify_model(config: Path | None, name: str, as_json: bool) -> int:
    """Has the worker's own code check a bundle; returns the exit status."""
    return _worker_tool("verify", [str(find(config, name)), *beside(bundles(config).values())], as_json)


def beside(known: Iterable[Path]) -> list[str]:
    """Arguments that tell the worker's code where the parts of a fusion may be."""
    return [word for path in known for word in ("--beside", str(path))]


def fingerprint_model(config: Path | None, name: str, directory: Path) -> int:
    """Has the worker's own code measure reference images; returns the exit status."""
    bundle = str(find(config, name))
    return subprocess.call([sys.executable, "-m", "workers.fingerprint", bundle, str(directory)])


def calibrate_model(config: Path | None, name: str, directory: Path) -> int:
    """Has the worker's own code fit a classifier's probabilities to known cases; returns the exit status."""
    bundle = str(find(config, name))
    return subprocess.call([sys.executable, "-m", "workers.calibrate", bundle, str(directory)])


def prepare_models(as_json: bool) -> int:
    """Fetches or converts the weights of the bundles that ship with Hilum; returns the exit status."""
    return _worker_tool("prepare", [], as_json)


def _worker_tool(action: str, arguments: list[str], as_json: bool) -> int:
    flags = ["--json"] if as_json else []
    return subprocess.call([sys.executable, "-m", "workers.models", action, *arguments, *flags])


def _row(name: str, path: Path) -> dict[str, Any]:
    try:
        manifest = read_manifest(path)
    except BundleInvalid as error:
        return {"name": name, "version": "", "title": "", "takes": "", "puts_out": "", "ready": error.message}
    return {
        "name": name,
        "version": manifest.version,
        "title": manifest.title,
        "takes": "/".join(manifest.input.modality),
        "puts_out": _puts_out(manifest),
        "ready": "yes"
        if all((path / each.file).is_file() for each in manifest.weight_files)
        else "no: run `hilum models prepare`",
    }


def _puts_out(manifest: Manifest) -> str:
    output = manifest.output
    named = [segment.label for segment in output.segments] + [finding.name.meaning for finding in output.findings]
    named += [value.name.meaning for value in output.values]
    return f"{output.kind}: {', '.join(named)}"
