"""The DICOM node against DCMTK's senders, pynetdicom's, and peers that break off."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom._uid_dict import UID_dictionary
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
)
from pynetdicom import AE, StoragePresentationContexts, build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification

from gateway.deliver.dimse import rejection_of
from gateway.domain.errors import ConfigurationError, ServiceUnavailable
from gateway.domain.ids import InstanceUID
from gateway.receive.dimse import DimseNode
from gateway.receive.settings import DicomSettings
from tests.support.node import EXPLICIT, Make, Site, associate, associations, dataset_digest, file, recorded, send, wait
from tests.support.received import SERIES, dataset, element, encode

pytestmark = pytest.mark.neighbour

LABEL_MAP, PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.30"


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """One of DCMTK's programs, without its 40 ms stalls."""
    environment = {**os.environ, "TCP_NODELAY": "1"}
    called = () if "-aec" in arguments else ("-aec", "HILUM")
    return subprocess.run(
        [program, *called, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )


def test_echo(make: Make) -> None:
    """A C-ECHO by DCMTK is answered."""
    done = run("echoscu", "-v", "127.0.0.1", make().port)
    assert done.returncode == 0, done.stderr


SYNTAXES = {
    "CT_small.dcm": ExplicitVRLittleEndian,
    "MR_small_implicit.dcm": ImplicitVRLittleEndian,
    "MR_small_bigendian.dcm": ExplicitVRBigEndian,
    "MR_small_RLE.dcm": RLELossless,
    "MR_small_jpeg_ls_lossless.dcm": JPEGLSLossless,
    "MR_small_jp2klossless.dcm": JPEG2000Lossless,
    "image_dfl.dcm": DeflatedExplicitVRLittleEndian,
    "SC_rgb_jpeg_dcmtk.dcm": JPEGBaseline8Bit,
}


@pytest.mark.parametrize("name", SYNTAXES)
def test_each_transfer_syntax_as_sent(make: Make, name: str) -> None:
    """Whatever the dataset is encoded in, the same bytes are on disk and the same syntax in the ledger."""
    path = Path(str(get_testdata_file(name)))
    whole, site = dcmread(path), make()
    assert whole.file_meta.TransferSyntaxUID == SYNTAXES[name]
    association = associate(site, [build_context(whole.SOPClassUID, SYNTAXES[name])])
    raw = path.read_bytes()[132 + 12 + int(whole.file_meta.FileMetaInformationGroupLength) :]
    assert send(association, whole, raw=raw).Status == 0x0000
    association.release()
    kept = site.ledger.instance(InstanceUID(whole.SOPInstanceUID))
    assert kept is not None
    assert kept.header.transfer_syntax_uid == SYNTAXES[name]
    assert site.digest(whole.SOPInstanceUID) == dataset_digest(path)
    assert dcmread(site.spool.path(kept.file)).SOPInstanceUID == whole.SOPInstanceUID


@pytest.mark.parametrize(
    ("option", "syntax"),
    [
        ("-xe", ExplicitVRLittleEndian),
        ("-xb", ExplicitVRBigEndian),
        ("-xi", ImplicitVRLittleEndian),
        ("-xd", DeflatedExplicitVRLittleEndian),
    ],
)
def test_what_storescu_encodes(make: Make, tmp_path: Path, option: str, syntax: UID) -> None:
    """DCMTK's own encodings are read, and kept as DCMTK wrote them."""
    site, path = make(), file(tmp_path / "a.dcm", syntax=syntax) if option != "-xd" else file(tmp_path / "a.dcm")
    done = run("storescu", option, "127.0.0.1", site.port, path)
    assert done.returncode == 0, done.stderr
    kept = site.ledger.instance(InstanceUID(f"{SERIES}.1"))
    assert kept is not None
    assert kept.header.transfer_syntax_uid == syntax
    assert (kept.header.patient.name, kept.header.rows) == ("Doe^Jane", 2)


@pytest.mark.parametrize(
    "tool", [["storescu", "-aec", "HILUM", "+r", "+sd"], ["dcmsend", "-aec", "HILUM", "+r", "+sd"]]
)
def test_a_folder_of_a_hundred(make: Make, tmp_path: Path, tool: list[str]) -> None:
    """Every file of a folder is there, once, in one study; sent again it is still there once."""
    site, folder = make(), tmp_path / "folder"
    folder.mkdir()
    sent = {f"{SERIES}.{number}": dataset_digest(file(folder / f"{number}.dcm", number)) for number in range(1, 101)}
    for _ in range(2):
        done = run(tool[0], *tool[1:3], "127.0.0.1", site.port, *tool[3:], folder)
        assert done.returncode == 0, done.stdout + done.stderr
        assert {uid: site.digest(uid) for uid in sent} == sent
        [study] = site.ledger.list_studies()
        assert study["instances"] == 100
    wait(lambda: site.ledger.open_studies()[0].all_released)


def test_every_storage_class_is_taken(make: Make) -> None:
    """Each class of the dictionary, those newer than it, retired ones and private ones; others are not ours."""
    site = make()
    classes = [str(context.abstract_syntax) for context in StoragePresentationContexts]
    every = list(
        dict.fromkeys(
            [*_all_storage_classes(), LABEL_MAP, PARAMETRIC_MAP, "1.3.12.2.1107.5.9.1", "1.2.840.113619.4.30", *classes]
        )
    )
    assert len(every) > 150
    for start in range(0, len(every), 128):
        batch = every[start : start + 128]
        association = associate(site, [build_context(uid, JPEG2000Lossless) for uid in batch])
        assert association.is_established
        assert {str(context.abstract_syntax) for context in association.accepted_contexts} == set(batch)
        association.release()
    association = associate(
        site, [build_context(StudyRootQueryRetrieveInformationModelFind), build_context(Verification)]
    )
    assert [str(context.abstract_syntax) for context in association.accepted_contexts] == [str(Verification)]
    association.release()


def _all_storage_classes() -> list[str]:
    # PS3.4 annex GG: objects without a patient (hanging protocols, implant templates, protocols) are another service.
    other = (
        "Commitment",
        "Directory",
        "Query",
        "Hanging",
        "Palette",
        "Implant",
        "Defined Procedure",
        "Approval",
        "Inventory",
    )
    return [
        uid
        for uid, (name, kind, *_) in UID_dictionary.items()
        if kind == "SOP Class" and "Storage" in name and not any(word in name for word in (*other, "SOP Class"))
    ]


@pytest.mark.parametrize("uid", [LABEL_MAP, PARAMETRIC_MAP, "1.3.12.2.1107.5.9.1"])
def test_new_and_private_classes_are_stored(make: Make, uid: str) -> None:
    """A SOP class that the library has no name for is stored like any other."""
    site, made = make(), dataset(SOPClassUID=uid)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    association = associate(site, [build_context(uid, ExplicitVRLittleEndian)])
    assert association.send_c_store(made).Status == 0x0000
    association.release()
    kept = site.ledger.instance(InstanceUID(f"{SERIES}.1"))
    assert kept is not None
    assert kept.header.sop_class_uid == uid


def test_refusals_and_the_association_goes_on(make: Make) -> None:
    """Each refusal has its status, nothing of it is kept, and the next instance is taken over the same association."""
    site = make()
    association = associate(site, EXPLICIT)
    mismatch = send(association, dataset(), uid=f"{SERIES}.77")
    assert mismatch.Status == 0xA900
    assert "differ" in mismatch.ErrorComment
    assert send(association, dataset(), raw=b"garbage" * 100).Status == 0xC000
    assert send(association, dataset(), raw=bytes(5000)).Status == 0xC000
    assert send(association, dataset(StudyInstanceUID=None)).Status == 0xC000
    assert site.ledger.list_studies() == []
    assert send(association, dataset()).Status == 0x0000
    assert send(association, dataset()).Status == 0x0000
    conflict = send(association, dataset(PatientID="P2"))
    assert conflict.Status == 0x0111
    association.release()
    assert site.ledger.list_studies()[0]["instances"] == 1
    assert len(site.ledger.dead_letters()["conflicts"]) == 1


@pytest.mark.parametrize("uid", ["../../../tmp/evil", "/etc/x", "1.2.3;$(id)"])
def test_hostile_identifiers_stay_outside(make: Make, tmp_path: Path, uid: str) -> None:
    """A UID that is a path is refused, and no file has its name."""
    site = make()
    association = associate(site, EXPLICIT)
    answer = send(association, dataset(), raw=_with_uid(uid))
    assert answer.Status in (0xC000, 0xA900)
    association.release()
    names = [path.name for path in (tmp_path / "site0" / "spool").rglob("*") if path.is_file()]
    assert names == []
    assert not Path("/tmp/evil").exists()  # noqa: S108


def _with_uid(uid: str) -> bytes:
    first = Dataset()
    first.SOPClassUID = MRImageStorage
    rest = dataset(SOPClassUID=None, SOPInstanceUID=None, ImageType=None)
    return encode(first) + element(0x00080018, b"UI", uid.encode() + b"\0" * (len(uid) % 2)) + encode(rest)


def test_no_room(make: Make, tmp_path: Path) -> None:
    """At the watermark storescu hears 0xA700."""
    site = make(refuse_all_below=1.0)
    done = run("storescu", "-v", "127.0.0.1", site.port, file(tmp_path / "a.dcm"))
    assert "Refused: OutOfResources" in done.stdout + done.stderr
    assert site.ledger.list_studies() == []


@pytest.mark.parametrize(
    ("settings", "options", "answer"),
    [
        ({}, ("-aec", "OTHER"), "Called AE Title Not Recognized"),
        (
            {"peers": [{"ae_title": "CT1", "host": "127.0.0.1"}]},
            ("-aet", "CT2", "-aec", "HILUM"),
            "Calling AE Title Not Recognized",
        ),
        (
            {"peers": [{"ae_title": "CT1", "host": "192.0.2.1"}]},
            ("-aet", "CT1", "-aec", "HILUM"),
            "Calling AE Title Not Recognized",
        ),
    ],
)
def test_who_may_not_send(
    make: Make, tmp_path: Path, settings: dict[str, object], options: tuple[str, ...], answer: str
) -> None:
    """A wrong title is an A-ASSOCIATE-RJ with its reason, and nothing is stored or left open."""
    site = make(**settings)
    for program, more in (("echoscu", ()), ("storescu", (file(tmp_path / "a.dcm"),))):
        done = run(program, "-v", *options, "127.0.0.1", site.port, *more)
        assert done.returncode != 0
        assert "Rejected Permanent" in done.stdout + done.stderr
        assert answer in done.stdout + done.stderr
    assert site.ledger.list_studies() == []
    wait(lambda: not associations())


def test_who_may_send(make: Make) -> None:
    """The right title from the right address is let in."""
    site = make(peers=[{"ae_title": "CT1", "host": "127.0.0.0/8"}])
    done = run("echoscu", "-aet", "CT1", "-aec", "HILUM", "127.0.0.1", site.port)
    assert done.returncode == 0, done.stderr


def test_a_failing_judge_lets_nobody_in(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours while an association is judged is a rejection, never an open door."""
    site = make()

    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(site.ledger, "open_association", fail)
    association = associate(site)
    assert rejection_of(association)
    assert not association.is_established


def test_an_abort_leaves_what_was_acknowledged(make: Make) -> None:
    """After an A-ABORT in the middle the acknowledged instances are there, and the study knows how it ended."""
    site = make()
    association = associate(site, EXPLICIT)
    for number in (1, 2, 3):
        assert send(association, dataset(number)).Status == 0x0000
    association.abort()
    wait(lambda: site.ledger.open_studies()[0].open_associations == 0)
    record = site.ledger.open_studies()[0]
    assert (record.instances, record.all_released) == (3, False)


def test_a_release_after_a_refusal_is_no_good_order(make: Make) -> None:
    """A sender that was refused one of its instances has not brought all there is, however politely it leaves."""
    site = make()
    association = associate(site, EXPLICIT)
    assert send(association, dataset(1)).Status == 0x0000
    assert send(association, dataset(2), uid=f"{SERIES}.3").Status == 0xA900
    association.release()
    wait(lambda: site.ledger.open_studies()[0].open_associations == 0)
    record = site.ledger.open_studies()[0]
    assert (record.instances, record.all_released) == (1, False)


def test_a_break_in_the_middle_of_an_instance(make: Make) -> None:
    """A connection cut at any place of an instance leaves the one before it, no half one, and no open association."""
    site = make()
    wire = recorded(site)
    whole = len(site.ledger.list_studies())
    assert whole == 1
    for cut in (5, 80, 300, len(wire) // 2, len(wire) - 200, len(wire) - 20):
        with socket.create_connection(("127.0.0.1", site.port)) as raw:
            raw.sendall(wire[:cut])
            raw.shutdown(socket.SHUT_WR)
            raw.settimeout(10)
            while raw.recv(65536):
                pass
    wait(lambda: not associations(), 5)
    assert {row["instances"] for row in site.ledger.list_studies()} == {1}
    assert len([path for path in (site.spool._objects).rglob("*") if path.is_file()]) == 1
    assert list(site.spool._temporary.iterdir()) == []
    assert site.ledger.open_studies()[0].open_associations == 0


def test_twenty_at_once(make: Make, tmp_path: Path) -> None:
    """Twenty senders of one study in parallel: every instance is there once."""
    site = make()
    groups = []
    for sender in range(20):
        folder = tmp_path / str(sender)
        folder.mkdir()
        groups.append([file(folder / f"{number}.dcm", sender * 10 + number) for number in range(1, 6)])
    with ThreadPoolExecutor(20) as pool:
        done = list(pool.map(lambda files: run("storescu", "127.0.0.1", site.port, *files), groups))
    assert [item.returncode for item in done] == [0] * 20
    assert site.ledger.list_studies()[0]["instances"] == 100
    for files in groups:
        for path in files:
            assert site.digest(dcmread(path).SOPInstanceUID) == dataset_digest(path)


def test_the_same_study_from_four_at_once(make: Make, tmp_path: Path) -> None:
    """Four senders of the same files: each is a success, and every instance is there once."""
    site, files = make(), [file(tmp_path / f"{number}.dcm", number) for number in range(1, 11)]
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: run("storescu", "127.0.0.1", site.port, *files), range(4)))
    assert [item.returncode for item in done] == [0] * 4
    assert site.ledger.list_studies()[0]["instances"] == 10


def test_one_too_many(make: Make) -> None:
    """Beyond the limit an association is refused for now, and one that ends makes room again."""
    site = make(max_associations=2)
    held = [associate(site) for _ in range(2)]
    assert all(item.is_established for item in held)
    third = associate(site)
    assert rejection_of(third)
    for item in held:
        item.release()
    wait(lambda: _is_let_in(site))


def _is_let_in(site: Site) -> bool:
    association = associate(site)
    established = bool(association.is_established)
    association.release() if established else association.abort()
    return established


def test_stop_ends_every_association(make: Make) -> None:
    """After a stop nobody is connected, nobody can connect, and what came is in the ledger."""
    site = make()
    association = associate(site, EXPLICIT)
    assert send(association, dataset()).Status == 0x0000
    site.node.stop()
    wait(lambda: not associations())
    assert not associate(site).is_established
    assert site.ledger.open_studies()[0].open_associations == 0
    with pytest.raises(ServiceUnavailable, match="not listening"):
        _ = site.node.port


def test_a_port_in_use(make: Make) -> None:
    """The second node on a port is one sentence with the fix."""
    site = make()
    with pytest.raises(
        ServiceUnavailable, match=rf"127\.0\.0\.1:{site.port}.*stop the other program or set dicom\.port"
    ):
        make(port=site.port)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_ours(make: Make, host: str) -> None:
    """A host that is not this machine is one sentence with the fix."""
    with pytest.raises(ServiceUnavailable, match=r"cannot listen .*set dicom\.host"):
        make(host=host)


@pytest.mark.parametrize("host", ["localhost", "::1", "0.0.0.0"])  # noqa: S104
def test_addresses_of_every_kind(make: Make, host: str) -> None:
    """A name, IPv6 and all addresses can be listened on."""
    site = make(host=host)
    association = AE("X").associate(
        host if ":" in host else "127.0.0.1", site.port, contexts=[build_context(Verification)], ae_title="HILUM"
    )
    assert association.is_established
    association.release()


# --- TLS -------------------------------------------------------------------------------------------------------------


class Certificates:
    """An authority, a server and a client it vouches for, and a stranger."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._openssl(
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
            "-days",
            "2",
            "-subj",
            "/CN=Test CA",
        )
        for name in ("server", "client"):
            self._openssl(
                "req",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-keyout",
                f"{name}.key",
                "-out",
                f"{name}.csr",
                "-subj",
                f"/CN={name}",
            )
            self._openssl(
                "x509",
                "-req",
                "-in",
                f"{name}.csr",
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-out",
                f"{name}.crt",
                "-days",
                "2",
            )
        self._openssl(
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "other.key",
            "-out",
            "other.crt",
            "-days",
            "2",
            "-subj",
            "/CN=Other",
        )

    def __call__(self, name: str) -> str:
        return str(self.directory / name)

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True)

    def server(self, **more: str) -> dict[str, str]:
        return {
            "cert_file": self("server.crt"),
            "key_file": self("server.key"),
            **{key: self(name) for key, name in more.items()},
        }


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


def test_tls_with_storescu(make: Make, tmp_path: Path, certificates: Certificates) -> None:
    """With mutual TLS DCMTK stores with the right certificate, and not with another, nor without TLS."""
    site = make(tls=certificates.server(client_ca_file="ca.crt"))
    path = file(tmp_path / "a.dcm")
    good = run(
        "storescu",
        "+tls",
        certificates("client.key"),
        certificates("client.crt"),
        "+cf",
        certificates("ca.crt"),
        "127.0.0.1",
        site.port,
        path,
    )
    assert good.returncode == 0, good.stderr
    assert site.digest(f"{SERIES}.1") == dataset_digest(path)
    stranger = run(
        "storescu",
        "+tls",
        certificates("other.key"),
        certificates("other.crt"),
        "+cf",
        certificates("ca.crt"),
        "127.0.0.1",
        site.port,
        path,
    )
    assert stranger.returncode != 0
    assert run("storescu", "-to", "3", "127.0.0.1", site.port, path).returncode != 0


def _client(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates("ca.crt"))
    context.check_hostname = False
    return context


def test_a_silent_client_holds_up_nobody(make: Make, certificates: Certificates) -> None:
    """A connection that never begins its TLS handshake does not keep others from theirs."""
    site = make(tls=certificates.server())
    with socket.create_connection(("127.0.0.1", site.port)):
        started = time.monotonic()
        association = associate(site, EXPLICIT, tls_args=(_client(certificates), None))
        assert association.is_established
        assert send(association, dataset()).Status == 0x0000
        association.release()
        assert time.monotonic() - started < 5


def test_old_tls_is_refused(make: Make, certificates: Certificates) -> None:
    """Nothing below TLS 1.2 (BCP 195)."""
    site = make(tls=certificates.server())
    context = _client(certificates)
    assert _handshake(site, context) >= "TLSv1.2"
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        _handshake(site, context)


def _handshake(site: Site, context: ssl.SSLContext) -> str:
    with socket.create_connection(("127.0.0.1", site.port)) as raw, context.wrap_socket(raw) as wrapped:
        return str(wrapped.version())


def test_a_key_behind_a_passphrase(certificates: Certificates, tmp_path: Path) -> None:
    """Nobody is asked for it: a service has nobody to ask, and would stand still at its start."""
    locked = tmp_path / "locked.key"
    command = ["openssl", "pkey", "-in", certificates("server.key"), "-aes256", "-passout", "pass:secret"]
    subprocess.run([*command, "-out", locked], check=True, capture_output=True)
    tls = {"cert_file": certificates("server.crt"), "key_file": locked}
    with pytest.raises(ConfigurationError, match=r"dicom\.tls\.key_file: .*locked\.key: .*passphrase"):
        DimseNode(None, DicomSettings.model_validate({"port": 0, "tls": tls})).start()  # type: ignore[arg-type]


def test_certificates_that_cannot_be_used(make: Make, certificates: Certificates) -> None:
    """A missing file and a key that does not fit are one sentence that names it, before anything listens."""
    for files in (
        {"cert_file": "/no/such", "key_file": certificates("server.key")},
        {"cert_file": certificates("server.crt"), "key_file": certificates("other.key")},
    ):
        with pytest.raises(
            ConfigurationError,
            match=r"^dicom\.tls\.(cert_file: /no/such cannot be used: No such file|key_file: .*other)",
        ):
            DimseNode(None, DicomSettings.model_validate({"port": 0, "tls": files})).start()  # type: ignore[arg-type]
