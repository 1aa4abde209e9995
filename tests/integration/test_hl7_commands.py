"""`hilum hl7` and `hilum check` as an interface analyst uses them, against tools that others wrote."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.commands.check import hl7_port
from gateway.domain.errors import ConfigurationError, DestinationUnreachable
from gateway.report.mllp import MllpEhr
from gateway.report.settings import Hl7Destination
from gateway.settings import Settings
from gateway.testing import FakeEhr
from tests.support.certificates import Certificate, make_certificate
from tests.support.fhir import fhir_server
from tests.support.mllp import Kept, framed, listening, message
from tests.support.orthanc import free_port

RUNNER = CliRunner()
RESULT = (
    "MSH|^~\\&|LAB||EHR||20240101||ORU^R01^ORU_R01|R1|P|2.5.1\rPID|1||P1||Doe^Jane\r"
    "OBR|1|||X^x^L|||20240101||||||||||||||||||F\rOBX|1|NM|V^v^L||1.5|mL^ml^UCUM|||||F\r"
)


def test_send_shows_each_answer(tmp_path: Path) -> None:
    """Three messages of one file, LF between segments; the second is refused: exit status 1."""
    file = tmp_path / "three.hl7"
    file.write_text("".join(message(named).replace("\r", "\n") for named in ("A", "B", "C")), encoding="utf-8")
    with FakeEhr(["AA", "AR", "AA"]) as peer:
        done = RUNNER.invoke(app, ["hl7", "send", str(file), "127.0.0.1", str(peer.port), "--json"])
        good = RUNNER.invoke(app, ["hl7", "send", str(file), "127.0.0.1", str(peer.port)])
    assert done.exit_code == 1
    assert [(row["control_id"], row["answer"]) for row in json.loads(done.stdout)] == [
        ("A", "AA"),
        ("B", "AR"),
        ("C", "AA"),
    ]
    assert good.exit_code == 0
    assert all(b"\n" not in one and one.endswith(b"\r") for one in peer.messages)


def test_listen_takes_messages_of_mllp_send(tmp_path: Path) -> None:
    """python-hl7's command sends; what came is shown and kept, and was acknowledged as told."""
    sent = tmp_path / "sent"
    sent.write_bytes(framed(message("A", charset="GB 18030-2000", patient="1||葉"), "gb18030"))
    command = [sys.executable, "-m", "gateway.cli", "hl7", "listen", "--port", "0", "--count", "1", "--answer", "AE"]
    listener = subprocess.Popen(
        [*command, "--output", str(tmp_path / "kept")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert listener.stderr is not None
    port = listener.stderr.readline().split(":")[1].split(",")[0]
    tool = Path(sys.executable).with_name("mllp_send")
    answer = subprocess.run(
        [tool, "--file", sent, "--port", port, "127.0.0.1"], capture_output=True, timeout=30, check=True
    )
    shown, _ = listener.communicate(timeout=30)
    assert b"MSA|AE|A" in answer.stdout
    assert "葉" in shown
    (kept,) = (tmp_path / "kept").iterdir()
    assert "葉".encode("gb18030") in kept.read_bytes()


def test_show_lists_every_field(tmp_path: Path) -> None:
    """By number and name, decoded by MSH-18; a segment that comes again says which one it is."""
    file = tmp_path / "one.hl7"
    file.write_bytes(message("A", charset="BIG-5", patient="P1||許^功蓋").encode("cp950"))
    (rows,) = json.loads(RUNNER.invoke(app, ["hl7", "show", str(file), "--json"]).stdout)
    values = {row["field"]: row["value"] for row in rows}
    assert (values["MSH-10"], values["PID-5"], values["PV1-2"]) == ("A", "許^功蓋", "I")
    assert "PID-5" in RUNNER.invoke(app, ["hl7", "show", str(file)]).stdout
    names = {row["field"]: row["name"] for row in rows}
    assert (names["MSH-10"], names["PID-5"]) == ("Message control id", "Patient name")
    file.write_text(message("A").replace("|2.5.1", "|2.9") + "PV1|2|O\rZZZ|[bold]x\r", encoding="ascii", newline="")
    shown = RUNNER.invoke(app, ["hl7", "show", str(file)]).stdout
    assert "PV1(2)-2" in shown
    assert "[bold]x" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["send", "FILE", "127.0.0.1", "99999"], "less than or equal to 65535"),
        (["send", "FILE", "127.0.0.1", "2575", "--key-file", "x.pem"], "--key-file needs --cert-file"),
        (["send", "FILE", "127.0.0.1", "2575", "--ca-file", "none.pem"], "none.pem cannot be used"),
        (["send", "nothing.hl7", "127.0.0.1", "2575"], "nothing.hl7: No such file"),
        (["listen", "--charset", "KLINGON"], "--charset 'KLINGON': write one of"),
        (["listen", "--answer", "XX"], "--answer must be AA, AE or AR"),
        (["show", "/"], "/: Is a directory"),
    ],
)
def test_wrong_arguments_are_told_in_one_sentence(arguments: list[str], said: str, tmp_path: Path) -> None:
    """And nothing hangs or falls over."""
    file = tmp_path / "one.hl7"
    file.write_text(message("A"), encoding="utf-8")
    command = [sys.executable, "-m", "gateway.cli", "hl7", *(str(file) if one == "FILE" else one for one in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    assert said in " ".join((done.stdout + done.stderr).replace("│", " ").split())
    assert "Traceback" not in done.stderr


def test_send_says_what_a_port_with_tls_may_want(tmp_path: Path) -> None:
    """That closes what is not TLS, or shows no certificate."""
    ours = make_certificate(tmp_path)
    files = {"cert_file": str(ours.certificate), "key_file": str(ours.key), "client_ca_file": str(ours.certificate)}
    file, kept = tmp_path / "one.hl7", Kept()
    file.write_text(message("A"), encoding="utf-8")
    shown = ["--cert-file", str(ours.certificate), "--key-file", str(ours.key)]
    with listening(kept, tls=files) as server:
        said = [
            RUNNER.invoke(app, ["hl7", "send", str(file), "127.0.0.1", str(server.port), "--timeout", "5", *more])
            for more in ([], ["--ca-file", str(ours.certificate)], ["--ca-file", str(ours.certificate), *shown])
        ]
    assert [one.exit_code for one in said] == [1, 1, 0]
    assert "TLS: --tls or --ca-file" in said[0].stderr
    assert "our certificate: --cert-file" in said[1].stderr
    assert len(kept.messages) == 1


def test_send_notes_bytes_that_are_not_what_they_are_called(tmp_path: Path) -> None:
    """The message is sent all the same: perhaps it is a trial."""
    file = tmp_path / "lie.hl7"
    file.write_text(message("A", charset="ASCII", patient="1||Müller"), encoding="utf-8", newline="")
    with FakeEhr() as peer:
        done = RUNNER.invoke(app, ["hl7", "send", str(file), "127.0.0.1", str(peer.port)])
    assert "A: byte" in done.stderr
    assert (done.exit_code, len(peer.messages)) == (0, 1)


@pytest.mark.parametrize(
    "golden", sorted((Path(__file__).parents[1] / "golden" / "hl7").glob("*.hl7")), ids=lambda file: str(file.stem)
)
def test_validate_accepts_what_we_send(golden: Path, tmp_path: Path) -> None:
    """The golden messages, as they go over the wire, in a batch."""
    text = f"FHS|^~\\&|A\rBHS|^~\\&|A\r{golden.read_text(encoding='utf-8')}BTS|1\rFTS|1\r"
    file = tmp_path / "one.hl7"
    file.write_bytes(text.replace("\n", "\r").encode("gb18030" if "gb18030" in golden.stem else "utf-8"))
    done = RUNNER.invoke(app, ["hl7", "validate", str(file)])
    assert done.exit_code == 0, done.stdout
    assert done.stdout.strip().endswith("valid")


def test_validate_says_what_it_could_not_look_at(tmp_path: Path) -> None:
    """An ORU of 2.8.2, whose groups hl7apy takes wrong; its values are looked at."""
    file = tmp_path / "newer.hl7"
    file.write_text(RESULT.replace("|2.5.1", "|2.8.2"), encoding="ascii", newline="")
    assert "valid; structure not looked at" in RUNNER.invoke(app, ["hl7", "validate", str(file)]).stdout
    file.write_text(RESULT.replace("|2.5.1", "|2.8.2").replace("|1.5|", "|x|"), encoding="ascii", newline="")
    assert RUNNER.invoke(app, ["hl7", "validate", str(file)]).exit_code == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (message("", charset=""), "MSH-10 is empty"),
        (message("A", charset="KLINGON"), "cannot be read"),
        (message("A").replace("|P|2.5.1", "||2.5.1"), "MSH_11"),
        (message("A").replace("ADT^A08^ADT_A01", "ORU^R01^ORU_R01"), "hl7apy"),
        (message("A", patient="||Doe^Jane"), "PID-3 is empty"),
        (message("A", patient="P1||Müller"), "beyond ASCII"),
        (RESULT.replace("|1.5|", "|1,5|"), "OBX 1: OBX-2 is NM, but OBX-5 '1,5' is not a number"),
        (RESULT.replace("|||||F", "|||||Q"), "OBX 1: OBX-11 'Q' is not of table 0085"),
        (RESULT.replace("|NM|", "||"), "OBX 1: OBX-2 is empty"),
        (RESULT.replace("||||F\r", "||||E\r"), "OBR-25 'E' is not of table 0123"),
    ],
)
def test_validate_says_what_is_wrong(text: str, said: str, tmp_path: Path) -> None:
    """One sentence, exit status 1."""
    file = tmp_path / "bad.hl7"
    file.write_text(text, encoding="utf-8", newline="")
    done = RUNNER.invoke(app, ["hl7", "validate", str(file)])
    assert done.exit_code == 1
    assert said in done.stdout


def test_validate_finds_nothing_wrong_with_a_good_result(tmp_path: Path) -> None:
    """The one that the wrong ones are made from."""
    file = tmp_path / "good.hl7"
    file.write_text(RESULT, encoding="ascii", newline="")
    done = RUNNER.invoke(app, ["hl7", "validate", str(file)])
    assert done.exit_code == 0, done.stdout


def test_a_file_without_messages_is_refused(tmp_path: Path) -> None:
    """And one that is not there."""
    file = tmp_path / "none.hl7"
    for _ in range(2):
        done = RUNNER.invoke(app, ["hl7", "validate", str(file)])
        assert isinstance(done.exception, ConfigurationError)
        file.write_text("nothing")


def test_check_looks_at_the_certificate_that_an_open_port_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that runs with the configured one is fine; with another, or without TLS, it has to be started anew."""
    ours, renewed = make_certificate(tmp_path), make_certificate(tmp_path, "127.0.0.2")
    monkeypatch.setattr("gateway.commands.check.is_held", lambda _: True)

    def site(port: int, one: Certificate) -> Settings:
        files = {"cert_file": str(one.certificate), "key_file": str(one.key)}
        return Settings.model_validate({"hl7": {"port": port, "tls": files}})

    with listening(Kept(), tls={"cert_file": str(ours.certificate), "key_file": str(ours.key)}) as server:
        assert "with TLS" in hl7_port(site(server.port, ours))
        with pytest.raises(OSError, match="does not show"):
            hl7_port(site(server.port, renewed))
    with listening(Kept(), message_timeout="300ms") as plain, pytest.raises(OSError, match="does not show"):
        hl7_port(site(plain.port, ours))


@pytest.mark.parametrize("kind", ["oru", "mdm"])
def test_check_sends_a_test_message_only_where_the_site_has_said_so(kind: str) -> None:
    """With processing id T, about nobody; it must be accepted."""
    with FakeEhr(["AA", "AR"]) as peer:
        plain = {"kind": "hl7", "host": "127.0.0.1", "port": peer.port, "message": kind}
        assert "accepts connections" in MllpEhr(Hl7Destination.model_validate(plain)).echo()
        assert peer.messages == []
        tried = Hl7Destination.model_validate({**plain, "test_message": True})
        assert "answered AA" in MllpEhr(tried).echo()
        with pytest.raises(DestinationUnreachable, match="AR"):
            MllpEhr(tried).echo()
    first = peer.messages[0].decode().split("\r")
    assert first[0].split("|")[10] == "T"
    assert "HILUM-TEST" in next(line for line in first if line.startswith("PID"))


def test_check_covers_every_interface_with_the_ehr(tmp_path: Path) -> None:
    """An engine by TLS that must accept a test message, a FHIR server with its tokens, and our own port; a certificate that
    nobody has vouched for, and a port that is taken, are told with what to do."""
    engine, other = make_certificate(tmp_path), make_certificate(tmp_path, "127.0.0.2")
    files = {"cert_file": str(engine.certificate), "key_file": str(engine.key)}
    secret, config, kept = tmp_path / "secret", tmp_path / "hilum.yaml", Kept()
    secret.write_text("s3cret")
    with (
        listening(kept, tls=files) as peer,
        fhir_server() as fhir,
        socket.create_server(("127.0.0.1", 0)) as taken,
    ):
        ehr = {"kind": "hl7", "host": "127.0.0.1", "port": peer.port, "test_message": True}
        oauth = {
            "token_url": f"http://127.0.0.1:{fhir.port}/token",
            "client_id": "h",
            "client_secret_file": str(secret),
        }
        site = {
            "data_dir": str(tmp_path / "data"),
            "dicom": {"port": free_port()},
            "http": {"port": 0},
            "hl7": {"port": taken.getsockname()[1], "tls": files},
            "destinations": {
                "engine": {**ehr, "tls": {"ca_file": str(engine.certificate)}},
                "stranger": {**ehr, "tls": {"ca_file": str(other.certificate)}},
                "fhir": {"kind": "fhir", "url": fhir.url, "oauth": oauth},
            },
        }
        config.write_text(yaml.safe_dump(site))
        done = RUNNER.invoke(app, ["check", "--config", str(config), "--json"])
        found = {item["what"]: item for item in json.loads(done.stdout)}
    assert "a test message is answered AA" in found["destination engine"]["found"]
    assert [one.head.processing_id for one in kept.messages] == ["T"]
    assert "speaks FHIR 4.0.1" in found["destination fhir"]["found"]
    assert len(fhir.token_requests) == 1
    assert {name for name in found if not found[name]["good"]} >= {"destination stranger", "hl7"}
    assert "the certificate is not accepted" in found["destination stranger"]["found"]
    assert all(found[name]["fix"] for name in ("destination stranger", "hl7"))
