"""Bundles on this machine.

python -m workers.models prepare [BUNDLE ...] [--json]    makes weights that are converted from packages
python -m workers.models verify  [BUNDLE ...] [--json]    checks manifest, weights and network, and those of a fusion's parts,
                                                          which are among the bundles and those given by --beside

A BUNDLE is a directory or `builtin:NAME`; without one, all that ship with Hilum.
"""

from __future__ import annotations

import argparse
import compileall
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gateway.bundle.files import builtin_bundles, bundle_digest, read_manifest, resolve_bundle
from gateway.bundle.manifest import Manifest
from gateway.domain.errors import BundleInvalid, HilumError
from workers.libraries import set_up_libraries
from workers.sandbox.confine import confine
from workers.sandbox.room import Room

PACKAGE = "workers.bundles"


def prepare(bundle: Path) -> dict[str, Any]:
    """Makes the weights of a bundle that ships with Hilum where they are missing or wrong; raises HilumError."""
    if bundle in builtin_bundles() and (bundle / "convert.py").is_file():
        try:
            importlib.import_module(f"{PACKAGE}.{bundle.name}.convert").prepare(bundle)
        except OSError as error:
            raise BundleInvalid(f"the weights of {bundle.name} cannot be written: {error.strerror}") from error
    return verify(bundle)


def verify(bundle: Path, beside: Sequence[Path] = ()) -> dict[str, Any]:
    """Opens a bundle as a job would, the parts of a fusion too; raises BundleInvalid with what is wrong."""
    manifest = read_manifest(bundle)
    set_up_libraries()
    if manifest.fusion is not None:
        return _verified_fusion(bundle, manifest, beside)
    from workers.infer.model import open_model  # here, since it takes seconds
    from workers.infer.scan import scan

    model = open_model(bundle)
    return {
        "bundle": str(bundle),
        "name": manifest.name,
        "version": manifest.version,
        "digest": model.identity.digest,
        "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
        "findings": [str(finding) for finding in scan(bundle)],
        "ok": True,
    }


def _verified_fusion(bundle: Path, manifest: Manifest, beside: Sequence[Path]) -> dict[str, Any]:
    from gateway.bundle.fused import check_parts, find_parts

    parts = find_parts(manifest, beside)
    check_parts(manifest, {name: read_manifest(path) for name, path in parts.items()})
    from workers.infer.model import open_model
    from workers.infer.predict import undecided
    from workers.infer.scan import scan

    parameters, findings = 0, []
    soft = manifest.fusion and manifest.fusion.combine == "mean" and manifest.output.kind == "segmentation"
    for name, path in parts.items():
        model = open_model(path)
        if soft and undecided(model.postprocess) is None:
            raise BundleInvalid(
                f"{manifest.name}: the part {name} gives no probabilities to make a mean of: combine by vote",
                code="no_probabilities",
            )
        parameters += sum(parameter.numel() for parameter in model.network.parameters())
        findings += [f"{name}: {finding}" for finding in scan(path)]
    return {
        "bundle": str(bundle),
        "name": manifest.name,
        "version": manifest.version,
        "digest": bundle_digest(bundle),
        "parameters": parameters,
        "parts": {name: str(path) for name, path in parts.items()},
        "findings": findings,
        "ok": True,
    }


def main() -> int:
    """Command line; exit status 0 where every bundle is good, else that of the first error."""
    parser = argparse.ArgumentParser(prog="python -m workers.models", description="bundles on this machine")
    parser.add_argument("action", choices=("prepare", "verify"))
    parser.add_argument("bundles", nargs="*", metavar="BUNDLE")
    parser.add_argument("--beside", action="append", default=[], metavar="BUNDLE", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    specs = arguments.bundles or [str(path) for path in builtin_bundles()]
    if arguments.action == "prepare":
        compileall.compile_dir(Path(__file__).parent, quiet=2)  # a model's process cannot keep what it compiles
        return _each(prepare, specs, arguments.json)
    with tempfile.TemporaryDirectory() as scratch:
        return _locked_up(
            lambda: _each(lambda bundle: verify(bundle, arguments.beside), specs, arguments.json),
            [*specs, *map(str, arguments.beside)],
            Path(scratch),
        )


def _locked_up(work: Callable[[], int], specs: Sequence[str], scratch: Path) -> int:
    """Does the work in a process that can reach the bundles only; returns its exit status."""
    child = os.fork()
    if child == 0:
        readable = tuple(Path(spec).resolve() for spec in specs if not spec.startswith("builtin:"))
        confine(Room(readable=readable, writable=scratch))
        status = work()
        sys.stdout.flush()
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _each(action: Callable[[Path], dict[str, Any]], specs: Sequence[str], as_json: bool) -> int:
    results, status = [], 0
    for spec in specs:
        try:
            results.append(action(resolve_bundle(spec, Path.cwd())))
        except HilumError as error:
            results.append({"bundle": spec, "ok": False, "error": error.message})
            status = status or error.exit_status
    _print(results, as_json)
    return status


def _print(results: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(results, indent=2))
        return
    for result in results:
        if result["ok"]:
            print(f"{result['name']} {result['version']}: ready ({result['parameters']:,} parameters)")
            for finding in result["findings"]:
                print(f"  to know: {finding}")
        else:
            print(f"{result['bundle']}: {result['error']}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
