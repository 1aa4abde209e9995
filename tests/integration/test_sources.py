"""How much a source has of a study: asked of Orthanc, DCMTK's dcmqrscp, and peers that do not behave."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from gateway.bootstrap import make_source
from gateway.deliver.cstore import CStorePacs
from gateway.deliver.settings import DicomDestination
from gateway.domain.errors import DestinationUnreachable, NoAnswer
from gateway.domain.evidence import SeriesCount, SourceCount
from gateway.domain.ids import SeriesUID, StudyUID
from gateway.hold.inquirer import Source
from gateway.hold.settings import DimseQuery, WebQuery
from gateway.settings import Settings
from tests.support.block import write_block
from tests.support.http import Reply, Request, web_server
from tests.support.orthanc import RunningOrthanc, free_port, running_orthanc
from tests.support.scp import blackhole
from tests.support.site import send

pytestmark = pytest.mark.neighbour


def dimse(port: int, title: str = "PACS", timeout: float = 5.0) -> Source:
    return make_source(DimseQuery(ae_title=title, host="127.0.0.1", port=port, timeout=timeout), Settings())


def web(url: str, **more: Any) -> Source:
    return make_source(WebQuery(url=url, **more), Settings())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One study of an MR series of 8 slices and a CT series of 5."""
    folder = tmp_path_factory.mktemp("images")
    study = {"StudyInstanceUID": "1.2.826.0.77"}
    mr = write_block(folder / "mr", seed="one", attributes={**study, "SeriesInstanceUID": "1.2.826.0.77.1"})[:8]
    ct = write_block(
        folder / "ct", seed="two", modality="CT", attributes={**study, "SeriesInstanceUID": "1.2.826.0.77.2"}
    )
    return [*mr, *ct[:5]]


STUDY = StudyUID("1.2.826.0.77")
BOTH = {
    SeriesCount(series_uid=SeriesUID(f"{STUDY}.1"), modality="MR", instances=8),
    SeriesCount(series_uid=SeriesUID(f"{STUDY}.2"), modality="CT", instances=5),
}


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, images: list[Path]) -> Iterator[RunningOrthanc]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        destination = DicomDestination(kind="dicom", ae_title="ORTHANC", host="127.0.0.1", port=server.dicom_port)
        send(images, destination.port)
        yield server


def _known(said: SourceCount, name: str) -> None:
    assert said.source == name
    assert set(said.series) == BOTH
    assert said.instances in (0, 13)


def test_orthanc(orthanc: RunningOrthanc) -> None:
    """Both ways tell study and series; a study that it does not have is no error."""
    by_dimse, by_web = dimse(orthanc.dicom_port, "ORTHANC"), web(orthanc.dicomweb)
    _known(by_dimse.count(STUDY), "ORTHANC by C-FIND")
    _known(by_web.count(STUDY), "127.0.0.1 by QIDO-RS")
    assert by_dimse.count(STUDY).instances == by_web.count(STUDY).instances == 13
    for source in (by_dimse, by_web):
        nothing = source.count(StudyUID("1.2.3.4"))
        assert (nothing.instances, nothing.series, nothing.problem) == (0, (), "")


def test_dcmqrscp(tmp_path: Path, images: list[Path]) -> None:
    """Another implementation of the same service."""
    with _dcmqrscp(tmp_path) as port:
        send(images, port, called="QRSCP")
        _known(dimse(port, "QRSCP").count(STUDY), "QRSCP by C-FIND")


@contextmanager
def _dcmqrscp(directory: Path) -> Iterator[int]:
    program, port = shutil.which("dcmqrscp"), free_port()
    assert program, "DCMTK is not installed: apt-get install dcmtk"
    (directory / "db").mkdir()
    configuration = directory / "dcmqrscp.cfg"
    configuration.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 4\nHostTable BEGIN\nHostTable END\n"
        "VendorTable BEGIN\nVendorTable END\nAETable BEGIN\n"
        f"QRSCP {directory / 'db'} RW (200, 1024mb) ANY\nAETable END\n"
    )
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([program, "-v", "-c", str(configuration)], stdout=log, stderr=log)
    try:
        pacs = CStorePacs(DicomDestination(kind="dicom", ae_title="QRSCP", host="127.0.0.1", port=port), "HILUM")
        end = time.monotonic() + 20
        while True:
            try:
                pacs.echo()
                break
            except DestinationUnreachable:
                assert time.monotonic() < end, (directory / "log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(20)


def answer(**keys: Any) -> Dataset:
    made = Dataset()
    for keyword, value in keys.items():
        setattr(made, keyword, value)
    return made


@contextmanager
def find_peer(find: Callable[[Dataset], Iterator[tuple[int, Dataset | None]]]) -> Iterator[int]:
    """A peer that answers queries as it is told."""
    entity = AE("PEER")
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, lambda event: find(event.identifier))]
    )
    assert server is not None
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def test_a_peer_that_counts_no_series() -> None:
    """Then its instances are counted one by one; answers for other studies, twice, or without a UID are not taken."""

    def find(query: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        if query.QueryRetrieveLevel == "STUDY":
            yield 0xFF00, answer(StudyInstanceUID=STUDY)
        elif query.QueryRetrieveLevel == "SERIES":
            yield 0xFF00, answer(StudyInstanceUID=STUDY, SeriesInstanceUID="1.5", Modality="MR")
            yield 0xFF00, answer(StudyInstanceUID=STUDY, SeriesInstanceUID="1.5", Modality="MR")
            yield 0xFF00, answer(StudyInstanceUID="1.2.9", SeriesInstanceUID="1.6", Modality="MR")
            yield 0xFF00, answer(StudyInstanceUID=STUDY, Modality="MR")
        else:
            assert query.SeriesInstanceUID == "1.5"
            for number in (1, 2, 3, 3):
                yield 0xFF00, answer(StudyInstanceUID=STUDY, SOPInstanceUID=f"1.5.{number}")

    with find_peer(find) as port:
        said = dimse(port).count(STUDY)
    assert (said.instances, said.series) == (
        0,
        (SeriesCount(series_uid=SeriesUID("1.5"), modality="MR", instances=3),),
    )


def _fails(_query: Dataset) -> Iterator[tuple[int, Dataset | None]]:
    yield 0xA700, None


def _never_ends(_query: Dataset) -> Iterator[tuple[int, Dataset | None]]:
    for number in range(1_000_000):
        yield 0xFF00, answer(StudyInstanceUID=STUDY, SeriesInstanceUID=f"1.{number}")


@pytest.mark.parametrize(
    ("find", "problem"), [(_fails, "C-FIND status 0xA700"), (_never_ends, "its answer has no end")]
)
def test_peers_that_do_not_behave(monkeypatch: pytest.MonkeyPatch, find: Any, problem: str) -> None:
    """Whatever they do ends, and says why there is no count."""
    monkeypatch.setattr("gateway.hold.cfind._MOST_ANSWERS", 50)
    with find_peer(find) as port, pytest.raises(NoAnswer, match=problem):
        dimse(port).count(STUDY)


def test_a_peer_that_is_not_there() -> None:
    """Nobody, somebody who is silent, and somebody who offers no C-FIND."""
    with pytest.raises(NoAnswer, match="cannot connect to PACS"):
        dimse(free_port()).count(STUDY)
    with blackhole() as port, pytest.raises(NoAnswer, match=r"no answer to the association request|cannot connect"):
        dimse(port, timeout=0.3).count(STUDY)
    with blackhole() as port, pytest.raises(NoAnswer, match="the connection broke"):
        web(f"http://127.0.0.1:{port}/dicom-web", timeout=0.3).count(STUDY)
    with pytest.raises(NoAnswer, match="cannot connect"):
        web(f"http://127.0.0.1:{free_port()}/dicom-web").count(STUDY)


def _json(*items: Mapping[str, Sequence[Any]]) -> bytes:
    keywords = {
        "StudyInstanceUID": ("0020000D", "UI"),
        "SeriesInstanceUID": ("0020000E", "UI"),
        "SOPInstanceUID": ("00080018", "UI"),
        "NumberOfStudyRelatedInstances": ("00201208", "IS"),
    }
    return json.dumps(
        [
            {keywords[name][0]: {"vr": keywords[name][1], "Value": list(value)} for name, value in item.items()}
            for item in items
        ]
    ).encode()


def test_a_server_that_counts_no_series(tmp_path: Path) -> None:
    """Its instances are counted page by page, also where it always gives the same page; it is told who asks."""

    def serve(request: Request) -> Reply:
        if "/instances" in request.path:
            return Reply(body=_json(*({"SOPInstanceUID": [f"1.5.{number}"]} for number in (1, 2, 3))))
        if "/series" in request.path:
            return Reply(body=_json({"SeriesInstanceUID": ["1.5"]}))
        return Reply(body=_json({"StudyInstanceUID": [STUDY], "NumberOfStudyRelatedInstances": [3]}))

    token = tmp_path / "token"
    token.write_text("secret\n")
    with web_server(serve) as server:
        said = web(server.url, token_file=token).count(STUDY)
    assert (said.instances, [one.instances for one in said.series]) == (3, [3])
    assert {request.headers["Authorization"] for request in server.requests} == {"Bearer secret"}


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (Reply(status=500), "HTTP 500"),
        (Reply(status=401), "HTTP 401"),
        (Reply(body=b"<html>"), "not DICOM JSON"),
        (Reply(body=b'{"a": 1}'), "not DICOM JSON"),
        (Reply(body=b"[" * 100_000), "not DICOM JSON"),
        (Reply(status=0), "the connection broke"),
    ],
)
def test_servers_that_do_not_behave(reply: Reply, problem: str) -> None:
    """Whatever they answer, it is one sentence."""
    with web_server(lambda _request: reply) as server, pytest.raises(NoAnswer, match=problem):
        web(server.url).count(STUDY)


def test_what_is_not_there_is_no_error() -> None:
    """204 and 404 both say that the study is not known."""
    for status in (204, 404):
        with web_server(lambda _request, status=status: Reply(status=status)) as server:
            assert web(server.url).count(STUDY).series == ()


def test_a_secret_that_cannot_be_read(tmp_path: Path) -> None:
    """It is said, and not sent."""
    with pytest.raises(NoAnswer, match="token_file cannot be read"):
        web("http://127.0.0.1:1/dicom-web", token_file=tmp_path / "none").count(STUDY)


def test_the_images_are_what_the_tests_say(images: list[Path]) -> None:
    """Two series in one study."""
    assert {str(pydicom.dcmread(file).StudyInstanceUID) for file in images} == {STUDY}
