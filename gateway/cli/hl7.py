"""`hilum hl7`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.options import AsJson

hl7_app = typer.Typer(help="HL7 v2 by hand, for interface analysts.", no_args_is_help=True)


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
