"""Bundles on this machine.

python -m workers.models prepare [BUNDLE ...] [--json]    makes weights that are converted from packages
python -m workers.models verify  [BUNDLE ...] [--json]    checks manifest, weights and network

A BUNDLE is a directory or `builtin:NAME`; without one, all that ship with Hilum.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from gateway.domain.errors import BundleInvalid, HilumError
from gateway.manifest import builtin_bundles, read_manifest, resolve_bundle

PACKAGE = "workers.bundles"


def prepare(bundle: Path) -> dict[str, Any]:
    """Makes the weights of a bundle that ships with Hilum where they are missing or wrong; raises HilumError."""
    if bundle in builtin_bundles() and (bundle / "convert.py").is_file():
        try:
            importlib.import_module(f"{PACKAGE}.{bundle.name}.convert").prepare(bundle)
        except OSError as error:
            raise BundleInvalid(f"the weights of {bundle.name} cannot be written: {error.strerror}") from error
    return verify(bundle)


def verify(bundle: Path) -> dict[str, Any]:
    """Opens a bundle as a job would; raises BundleInvalid with what is wrong."""
    manifest = read_manifest(bundle)
    from workers.infer.model import open_model  # here, since it takes seconds

    model = open_model(bundle)
    return {
        "bundle": str(bundle),
        "name": manifest.name,
        "version": manifest.version,
        "digest": model.identity.digest,
        "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
        "ok": True,
    }


def main() -> int:
    """Command line; exit status 0 where every bundle is good, else that of the first error."""
    parser = argparse.ArgumentParser(prog="python -m workers.models", description="bundles on this machine")
    parser.add_argument("action", choices=("prepare", "verify"))
    parser.add_argument("bundles", nargs="*", metavar="BUNDLE")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    action = prepare if arguments.action == "prepare" else verify
    results, status = [], 0
    for spec in arguments.bundles or [str(path) for path in builtin_bundles()]:
        try:
            results.append(action(resolve_bundle(spec, Path.cwd())))
        except HilumError as error:
            results.append({"bundle": spec, "ok": False, "error": error.message})
            status = status or error.exit_status
    _print(results, arguments.json)
    return status


def _print(results: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(results, indent=2))
        return
    for result in results:
        if result["ok"]:
            print(f"{result['name']} {result['version']}: ready ({result['parameters']:,} parameters)")
        else:
            print(f"{result['bundle']}: {result['error']}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
