"""The `hilum` command: thin; each command's work is in `gateway.commands`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gateway.domain.errors import HilumError

app = typer.Typer(
    help="Studies in from the PACS, MONAI models on Celery workers, SEG and SR back to the PACS, HL7 to the EHR.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="The bundles a site can run.", no_args_is_help=True)
jobs_app = typer.Typer(invoke_without_command=True)
viewer_app = typer.Typer(help="The viewer OHIF.")
config_app = typer.Typer(help="The configuration file.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(jobs_app, name="jobs")
app.add_typer(config_app, name="config")
hl7_app = typer.Typer(help="HL7 v2 by hand, for interface analysts.", no_args_is_help=True)
app.add_typer(hl7_app, name="hl7")
app.add_typer(viewer_app, name="viewer", invoke_without_command=True)

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="HILUM_CONFIG", help="hilum.yaml of the site; without it, all defaults."),
]
SiteConfig = Annotated[Path, typer.Option("--config", "-c", envvar="HILUM_CONFIG", help="hilum.yaml of the site.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option(help="How many, newest first.", min=1)]


@app.command()
def serve(config: Config = None, workers: Annotated[int, typer.Option(min=0, help="Worker processes.")] = 1) -> None:
    """Everything in one process tree: DICOM node, embedded broker, ledger, spool, worker, deliveries."""
    from gateway.commands.serve import serve as run

    run(config, workers=workers)


@app.command()
def gateway(config: Config = None) -> None:
    """The gateway alone, without a worker."""
    from gateway.commands.serve import serve as run

    run(config, workers=0)


@app.command()
def worker(config: Config = None) -> None:
    """One worker alone."""
    from gateway.commands.serve import run_worker

    raise typer.Exit(run_worker(config))


@app.command()
def web(
    config: Config = None,
    inherited: Annotated[int | None, typer.Option(hidden=True, help="Descriptor of a port of our parent's.")] = None,
) -> None:
    """DICOMweb and the viewer's pages alone."""
    from gateway.commands.web import web as run

    run(config, inherited)


@app.command(hidden=True)
def receiver(
    inherited: Annotated[int, typer.Option(help="Descriptor of our parent's.")], config: Config = None
) -> None:
    """A receiver process of the gateway's."""
    from gateway.commands.receive import receive as run

    run(config, inherited)


@viewer_app.callback()
def viewer(
    context: typer.Context,
    config: Config = None,
    dicomweb: Annotated[
        str, typer.Option(help="DICOMweb of another archive, for example http://127.0.0.1:8042/dicom-web.")
    ] = "",
) -> None:
    """The viewer OHIF on what Hilum holds, or on another archive's DICOMweb."""
    if context.invoked_subcommand is None:
        from gateway.commands.viewer import view

        view(config, dicomweb)


@viewer_app.command("install")
def viewer_install(config: Config = None) -> None:
    """Gets OHIF from npm, by version and digest, and keeps of it what is needed."""
    from gateway.commands.viewer import install_viewer

    print(install_viewer(config))


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Where to keep what the demonstration makes.")] = Path("demo-output"),
    as_json: AsJson = False,
) -> None:
    """The main job on a real head MR: C-STORE in, model, SEG and SR into Orthanc, ORU^R01 to an HL7 receiver."""
    from gateway.commands.demo import run_demo

    raise typer.Exit(run_demo(output, as_json))


@app.command()
def process(
    input_dir: Annotated[Path, typer.Argument(help="Folder with the study's DICOM files.")],
    model: Annotated[str, typer.Option(help="Name of a model, or a bundle's directory.")],
    output: Annotated[Path, typer.Option(help="Folder for the results.")],
    series: Annotated[str | None, typer.Option(help="Series Instance UID, where several fit.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """One study from a folder, no network: writes the result objects, result.json and oru.hl7."""
    from gateway.commands.models import bundles, find
    from gateway.commands.process import process as run
    from gateway.commands.process import show_processed

    bundle = find(config, model)
    with Console(stderr=True).status("starting") as status:
        done = run(
            input_dir,
            bundle,
            output,
            series_uid=series,
            progress=lambda stage: status.update(stage),
            known=bundles(config).values(),
        )
    show_processed(done, as_json)


@app.command()
def check(config: Config = None, as_json: AsJson = False) -> None:
    """Site doctor: every path, part, model and peer, with the fix for what fails."""
    from gateway.commands.check import check as run

    raise typer.Exit(run(config, as_json))


@app.command()
def studies(config: Config = None, limit: Limit = 50, as_json: AsJson = False) -> None:
    """What arrived."""
    from gateway.commands.show import show_studies

    show_studies(config, limit, as_json)


@jobs_app.callback()
def jobs(context: typer.Context, config: Config = None, limit: Limit = 50, as_json: AsJson = False) -> None:
    """What ran, runs and waits; without a command, a list."""
    from gateway.commands.show import show_jobs

    if context.invoked_subcommand is None:
        show_jobs(config, limit, as_json)


@jobs_app.command("cancel")
def jobs_cancel(job: str, config: Config = None) -> None:
    """Ends a job that waits or runs: it is dead, and can be replayed."""
    from gateway.commands.show import cancel

    print(cancel(config, job))


@app.command()
def status(config: Config = None, as_json: AsJson = False) -> None:
    """Which workers are there, which models they have open, and what waits for what."""
    from gateway.commands.overview import show_status

    show_status(config, as_json)


@app.command()
def deliveries(config: Config = None, limit: Limit = 50, as_json: AsJson = False) -> None:
    """What went where, and what was answered."""
    from gateway.commands.show import show_deliveries

    show_deliveries(config, limit, as_json)


@app.command()
def orders(config: Config = None, limit: Limit = 50, as_json: AsJson = False) -> None:
    """What the EHR has ordered, and every message that it has sent."""
    from gateway.commands.show import show_orders

    show_orders(config, limit, as_json)


@app.command()
def release(study_uid: str, config: Config = None) -> None:
    """Lets the results of a study go although its order and its images do not agree."""
    from gateway.commands.show import release as run

    print(run(config, study_uid))


@app.command()
def explain(study_uid: str, config: Config = None, as_json: AsJson = False) -> None:
    """Everything about one study: why it was released, what ran, what was sent where and who acknowledged."""
    from gateway.commands.show import explain as run

    run(config, study_uid, as_json)


@app.command("dead-letters")
def dead_letters(config: Config = None, as_json: AsJson = False) -> None:
    """What was given up or held back, and why."""
    from gateway.commands.show import show_dead_letters

    show_dead_letters(config, as_json)


@app.command()
def replay(
    what: Annotated[str, typer.Argument(help="study, job, delivery or message")],
    which: Annotated[str, typer.Argument(help="Its id, or `all` that are dead or held back.")],
    config: Config = None,
) -> None:
    """Routes a study, runs a job, sends a delivery or reads a message from the EHR again."""
    from gateway.commands.show import replay as run

    print(run(config, what, which))


@app.command()
def confirm(
    job: Annotated[str, typer.Argument(metavar="JOB_ID", help="The job whose result a person has looked at.")],
    by: Annotated[str, typer.Option(help="Who confirms it: the name goes into the report.")],
    config: Config = None,
) -> None:
    """Records that a person has confirmed a result: its preliminary reports become final ones."""
    from gateway.commands.report import confirm as run

    print(run(config, job, by))


@app.command()
def recall(
    model_digest: Annotated[str, typer.Argument(help="Digest of the model's build, or its first 8 digits or more.")],
    since: Annotated[str | None, typer.Option(help="Only results made since this date or time, ISO 8601.")] = None,
    reason: Annotated[str, typer.Option(help="quality or safety")] = "quality",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Withdraws every result of a model's build: rejection notes to the archives, cancellations to the EHR."""
    from gateway.commands.recall import recall as run

    run(config, model_digest, since, reason, dry_run, as_json)


@app.command()
def send(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with DICOM files.")],
    host: str,
    port: int,
    called_aet: Annotated[str, typer.Option(help="Who to call.")] = "HILUM",
    calling_aet: Annotated[str, typer.Option(help="Who we say we are.")] = "HILUM_SEND",
    as_json: AsJson = False,
) -> None:
    """A small C-STORE sender for trials."""
    from gateway.commands.send import send as run

    raise typer.Exit(run(source, host, port, called_aet, calling_aet, as_json))


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


@hl7_app.command("send")
def hl7_send(
    file: Annotated[Path, typer.Argument(help="Messages, framed or one after the other.")],
    host: str,
    port: Annotated[int, typer.Argument(min=1, max=65535)],
    tls: Annotated[bool, typer.Option("--tls", help="Use TLS, and trust the system's authorities.")] = False,
    ca_file: Annotated[Path | None, typer.Option(help="Use TLS, and trust this authority.")] = None,
    cert_file: Annotated[Path | None, typer.Option(help="Our certificate, where the receiver wants one.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for each acknowledgement.", min=0.1)] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Sends messages over MLLP and shows the acknowledgement of each; exit status 1 unless all are accepted."""
    from gateway.commands.hl7 import send as run
    from gateway.commands.hl7 import tls_of

    raise typer.Exit(run(file, host, port, tls_of(tls, ca_file, cert_file, key_file), timeout, as_json))


@hl7_app.command("listen")
def hl7_listen(
    port: Annotated[int, typer.Option(help="Where to listen; 0 lets the system choose.", min=0, max=65535)] = 2575,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    answer: Annotated[str, typer.Option(help="AA, AE or AR.")] = "AA",
    count: Annotated[int, typer.Option(help="End after so many messages; 0 goes on.", min=0)] = 0,
    charset: Annotated[str, typer.Option(help="Of senders whose MSH-18 names none.")] = "UNICODE UTF-8",
    output: Annotated[Path | None, typer.Option(help="Keep each message in a file of this folder.")] = None,
    cert_file: Annotated[Path | None, typer.Option(help="Listen with TLS, with this certificate.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
) -> None:
    """Receives messages over MLLP, shows and acknowledges them."""
    from gateway.commands.hl7 import listen, listener_settings
    from gateway.tls import ServerTls

    tls = ServerTls(cert_file=cert_file, key_file=key_file or cert_file) if cert_file else None
    raise typer.Exit(listen(listener_settings(host, port, charset, tls), answer, count, output))


@hl7_app.command("show")
def hl7_show(file: Path, as_json: AsJson = False) -> None:
    """Every field of every message of a file, by number and name."""
    from gateway.commands.hl7 import show

    show(file, as_json)


@hl7_app.command("validate")
def hl7_validate(file: Path, as_json: AsJson = False) -> None:
    """Character set, MSH, structure and values of every message of a file; exit status 1 unless all are valid."""
    from gateway.commands.hl7 import validate

    raise typer.Exit(validate(file, as_json))


@config_app.command("schema")
def config_schema() -> None:
    """The JSON Schema of hilum.yaml."""
    from gateway.settings import Settings

    print(json.dumps(Settings.model_json_schema(), indent=2))


@config_app.command("check")
def config_check(file: Path) -> None:
    """Reads a configuration file and says what is wrong with it."""
    from gateway.bootstrap import make_models, make_rules
    from gateway.settings import read_settings

    settings = read_settings(file)
    make_rules(settings)
    make_models(settings)
    print(f"{file} is good: {len(settings.rules)} rules, {len(settings.models)} models")


def main() -> None:
    """Entry point: every error of ours is one clear sentence on stderr and the exit status it names."""
    try:
        app()
    except HilumError as error:
        print(error.message, file=sys.stderr)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        sys.exit(0)  # `hilum jobs | head`


if __name__ == "__main__":
    main()
