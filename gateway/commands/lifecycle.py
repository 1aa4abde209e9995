"""`hilum models add, sign, test, pin, remove`: a bundle's way into a site, and out of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gateway.bundle.admitted import remember_accepted
from gateway.bundle.files import bundle_digest, check_weights, read_manifest, resolve_bundle
from gateway.bundle.manifest import AcceptanceCase
from gateway.bundle.signature import check_signature, sign_bundle
from gateway.commands.edit import drop_model, pin_model, set_model
from gateway.commands.models import beside, bundles, find
from gateway.commands.process import process
from gateway.domain.errors import BundleInvalid, ConfigurationError, HilumError, InputRefused
from gateway.domain.messages import Outcome
from gateway.settings import read_settings

COPIES = "bundles"  # in the data directory


def add(config: Path, directory: Path, name: str | None) -> str:
    """Verifies a bundle, has its acceptance cases pass, copies it where nobody works on it, and pins it in the site's file."""
    source = resolve_bundle(str(directory), Path.cwd())
    manifest = read_manifest(source)
    check_weights(source, manifest)
    known = list(bundles(config).values())
    status = subprocess.call([sys.executable, "-m", "workers.models", "verify", str(source), *beside(known)])
    if status != 0:
        raise BundleInvalid(f"{manifest.name} is not added: it does not verify")
    settings = read_settings(config)
    digest = bundle_digest(source)
    if settings.models_trust is not None:
        check_signature(source, digest, settings.models_trust.keys, require=settings.models_trust.require)
    copy = settings.data_dir / COPIES / f"{manifest.name}-{digest[:12]}"
    if not copy.is_dir():
        partial = copy.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        partial.replace(copy)
    if bundle_digest(copy) != digest:
        raise BundleInvalid(f"{manifest.name} changed while it was copied, or its copy {copy} was changed")
    _accept(settings.data_dir, copy, known)
    set_model(config, name or manifest.name, str(copy), digest)
    return f"{name or manifest.name}: added, pinned to {digest[:12]}...; rules may run it now"


def sign(directory: Path, key: Path) -> str:
    """Signs the build that is there with a private key; raises ConfigurationError and BundleInvalid."""
    manifest = read_manifest(directory)
    check_weights(directory, manifest)
    file = sign_bundle(directory, bundle_digest(directory), key)
    return f"wrote {file}: {manifest.name} {manifest.version} is signed; a change of any file makes it void"


def test(config: Path | None, name: str) -> str:
    """Runs a bundle's acceptance cases on this machine, and remembers that they passed; raises BundleInvalid."""
    passed, faster = _accept(read_settings(config).data_dir, find(config, name), bundles(config).values())
    agrees = f"; {faster}" if faster else ""
    return f"{name}: {passed} acceptance cases passed{agrees}" if passed else f"{name} has no acceptance cases"


def pin(config: Path, name: str) -> str:
    """Writes the digest of the build that is there into the site's file."""
    settings = read_settings(config)
    if name not in settings.models:
        raise ConfigurationError(f"{config}: no model is called {name!r}")
    digest = bundle_digest(resolve_bundle(settings.models[name].bundle, Path.cwd()))
    pin_model(config, name, digest)
    return f"{name}: pinned to {digest}"


def remove(config: Path, name: str) -> str:
    """Takes a model out of the site's file, and its copy away; raises ConfigurationError while a rule runs it."""
    settings = read_settings(config)
    entry = settings.models.get(name)
    drop_model(config, name)
    assert entry is not None  # noqa: S101 - else there was nothing to drop
    copies = (settings.data_dir / COPIES).resolve()
    used = {other.bundle for key, other in settings.models.items() if key != name}
    if Path(entry.bundle).parent == copies and entry.bundle not in used:
        shutil.rmtree(entry.bundle, ignore_errors=True)
    return f"{name}: removed"


def _accept(data_dir: Path, bundle: Path, known: Iterable[Path]) -> tuple[int, str]:
    """How many cases passed, and what is to be said of a model that was made faster."""
    manifest, there = read_manifest(bundle), tuple(known)
    compared: list[Mapping[str, float]] = []
    problems = [
        f"{case.name}: {found}" for case in manifest.acceptance if (found := _problem(bundle, case, compared, there))
    ]
    if problems:
        raise BundleInvalid(f"{manifest.name} fails on this machine: {'; '.join(problems)}", code="not_accepted")
    if manifest.acceptance:
        remember_accepted(data_dir, manifest, bundle_digest(bundle))
    return len(manifest.acceptance), _faster(compared)


def _faster(compared: Sequence[Mapping[str, float]]) -> str:
    if not compared:
        return ""
    agrees = min(one["agreement"] for one in compared)
    speeds = sorted(one["speed"] for one in compared)
    speed = f"{speeds[0]:.2f}" if len(speeds) == 1 else f"{speeds[0]:.2f} to {speeds[-1]:.2f}"
    return f"made faster, it agrees with itself by {agrees:.4f} at least, and is {speed} x as fast"


def _problem(
    bundle: Path, case: AcceptanceCase, compared: list[Mapping[str, float]], known: Iterable[Path]
) -> str | None:
    with tempfile.TemporaryDirectory() as output:
        try:
            outcome = process(bundle / case.input, bundle, Path(output), compare=True, known=known).outcome
        except InputRefused as refusal:
            return None if refusal.code == case.refused else f"refused ({refusal.message})"
        except HilumError as error:
            return error.message
    compared += [outcome.quality] if "agreement" in outcome.quality else []
    return "done, where it should be refused" if case.refused else _unexpected(outcome, case)


def _unexpected(outcome: Outcome, case: AcceptanceCase) -> str | None:
    for expected in case.expect:
        measured = [item for item in outcome.measurements if item.segment == expected.segment]
        if not outcome.segments:  # numbers of a classification or regression, in the manifest's order
            measured = list(outcome.measurements[expected.segment - 1 : expected.segment])
        values = [item.value for item in measured]
        if not values:
            return f"segment {expected.segment} is not measured"
        if not expected.min <= values[0] <= expected.max:
            return f"segment {expected.segment} measures {values[0]:.6g}, not {expected.min:g} to {expected.max:g}"
    return None
