"""`hilum models`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.options import AsJson, Config, SiteConfig

models_app = typer.Typer(help="The bundles a site can run.", no_args_is_help=True)


@models_app.command("list")
def models_list(config: Config = None, as_json: AsJson = False) -> None:
    """All bundles."""
    from gateway.commands.models import list_models

    list_models(config, as_json)


@models_app.command("show")
def models_show(name: str, config: Config = None, as_json: AsJson = False) -> None:
    """One bundle's manifest."""
    from gateway.commands.models import show_model

    show_model(config, name, as_json)


@models_app.command("verify")
def models_verify(name: str, config: Config = None, as_json: AsJson = False) -> None:
    """Checks a bundle's manifest, digest, network and weights."""
    from gateway.commands.models import verify_model

    raise typer.Exit(verify_model(config, name, as_json))


@models_app.command("init")
def models_init(
    directory: Annotated[Path, typer.Argument(help="A MONAI bundle without a manifest, or a new folder for a fusion.")],
    yes: Annotated[bool, typer.Option("--yes", help="Take every proposal.")] = False,
    fuse: Annotated[
        list[str] | None, typer.Option(help="Instead: a fusion of this model and of others; give it for each.")
    ] = None,
    config: Config = None,
) -> None:
    """Writes the manifest of a MONAI bundle, from its metadata.json and a few questions; or that of a fusion of models."""
    from gateway.commands.draft import draft

    ask = (lambda _, proposal: proposal) if yes else (lambda question, proposal: typer.prompt(question, proposal))
    print(draft(directory, fuse or (), config, ask))


@models_app.command("add")
def models_add(
    bundle: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="The bundle's directory.")],
    config: SiteConfig,
    name: Annotated[str | None, typer.Option(help="The site's name for it; else the manifest's.")] = None,
) -> None:
    """Scans, verifies and tests a bundle, copies it into the data directory, and pins it in the site's file."""
    from gateway.commands.lifecycle import add

    print(add(config, bundle, name))


@models_app.command("sign")
def models_sign(
    key: Annotated[Path, typer.Argument(metavar="KEY", help="Ed25519 private key, PEM.")],
    bundle: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="The bundle's directory.")],
) -> None:
    """Signs a bundle, for sites that take signed ones only (models_trust)."""
    from gateway.commands.lifecycle import sign

    print(sign(bundle, key))


@models_app.command("schema")
def models_schema() -> None:
    """Prints the JSON Schema of the manifest, hilum.yaml of a bundle."""
    from gateway.bundle.manifest import schema

    print(json.dumps(schema(), indent=2))


@models_app.command("test")
def models_test(name: str, config: Config = None) -> None:
    """Runs a bundle's acceptance cases; a bundle that has some may not run before they passed on this machine."""
    from gateway.commands.lifecycle import test

    print(test(config, name))


@models_app.command("pin")
def models_pin(name: str, config: SiteConfig) -> None:
    """Writes the digest of a configured model into the site's file: no other build may run."""
    from gateway.commands.lifecycle import pin

    print(pin(config, name))


@models_app.command("remove")
def models_remove(name: str, config: SiteConfig) -> None:
    """Takes a model that no rule runs out of the site's file, and its copy away."""
    from gateway.commands.lifecycle import remove

    print(remove(config, name))


@models_app.command("fingerprint")
def models_fingerprint(
    name: str,
    directory: Annotated[Path, typer.Argument(help="DICOM files of reference images, one or more series.")],
    config: Config = None,
) -> None:
    """Measures reference images for a bundle's envelope, and writes the fingerprint into the bundle."""
    from gateway.commands.models import fingerprint_model

    raise typer.Exit(fingerprint_model(config, name, directory))


@models_app.command("calibrate")
def models_calibrate(
    name: str,
    directory: Annotated[Path, typer.Argument(help="labels.csv, and logits.csv or a folder of images for each case.")],
    config: Config = None,
) -> None:
    """Fits a classifier's probabilities to cases whose answers are known, and writes the calibration into the bundle."""
    from gateway.commands.models import calibrate_model

    raise typer.Exit(calibrate_model(config, name, directory))


@models_app.command("prepare")
def models_prepare(as_json: AsJson = False) -> None:
    """Converts the weights of the bundles that ship with Hilum."""
    from gateway.commands.models import prepare_models

    raise typer.Exit(prepare_models(as_json))
