"""All commands but those with a group of their own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gateway.cli.hl7 import hl7_app
from gateway.cli.models import models_app
from gateway.cli.options import AsJson, Config, Limit
from gateway.domain.errors import HilumError

app = typer.Typer(
    help="Studies in from the PACS, MONAI models on Celery workers, SEG and SR back to the PACS, HL7 to the EHR.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
jobs_app = typer.Typer(invoke_without_command=True)
viewer_app = typer.Typer(help="The viewer OHIF.")
config_app = typer.Typer(help="The configuration file.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(jobs_app, name="jobs")
app.add_typer(config_app, name="config")
app.add_typer(hl7_app, name="hl7")
app.add_typer(viewer_app, name="viewer", invoke_without_command=True)


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
