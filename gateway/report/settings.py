"""What a site may say about where reports go, and how they look."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from gateway.domain.job import ReportKind
from gateway.domain.units import parse_duration
from gateway.hl7.settings import known_zone
from gateway.report.codes import CodeSystem
from gateway.report.content import TEMPLATE_NAMES
from gateway.tls import ClientTls

VERSIONS = ("2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.8")
CHARSETS = {
    "ASCII": "ascii",
    **{f"8859/{part}": f"iso8859-{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
    "SHIFT_JIS": "cp932",
    "ISO IR87": "iso2022_jp",
    "KS X 1001": "cp949",
    "BIG-5": "cp950",
    "GB 18030-2000": "gb18030",
    "UNICODE UTF-8": "utf-8",
}
"""HL7 table 0211 (MSH-18), and Shift-JIS, -> Python codec."""

SWITCHED = {"ISO IR87": ("~ISO IR87", "ISO 2022-1994")}
"""Character sets that ASCII is switched to by escape sequences -> MSH-18 with ASCII as the default, and MSH-20 (table 0356), as
Japan writes them."""

STATUS = {
    ReportKind.PRELIMINARY: "P",
    ReportKind.FINAL: "F",
    ReportKind.CORRECTED: "C",
    ReportKind.CANCELLED: "X",
    ReportKind.REFUSED: "P",  # what is said holds, and is preliminary; X could be read as the order being cancelled
}
"""HL7 table 0123 (OBR-25), and 0085 (OBX-11)."""

_URL = r"^https?://[^\s/?#@]+(/[^\s?#]*)?$"
_PLACE = re.compile(r"[A-Z][A-Z0-9]{2}-[1-9][0-9]?")
_OURS = frozenset(
    ("MSH-1", "MSH-2", "MSH-7", "MSH-9", "MSH-10", "MSH-12", "MSH-15", "MSH-16", "MSH-18", "PID-3", "PID-5", "ORC-3",
     "OBR-3", "OBR-22", "OBR-25", "OBX-1", "OBX-2", "OBX-3", "OBX-5", "OBX-11", "TXA-12")
)  # fmt: skip
"""Places that no template may change: they say whom and what a message is about, and whether it holds."""


def _one_of(choices: Collection[str], what: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in choices:
            raise ValueError(f"not {what}; one of {', '.join(choices)}")
        return text

    return check


def _template(text: str) -> str:
    for name in re.findall(r"\{(.*?)\}", text):
        if name not in TEMPLATE_NAMES:
            raise ValueError(f"{{{name}}} is not known; one of {', '.join(sorted(TEMPLATE_NAMES))}")
    if not text.isprintable():
        raise ValueError("a template is one line")
    return text


def _place(text: str) -> str:
    if not _PLACE.fullmatch(text):
        raise ValueError("not a place in a message: write it like PV1-2")
    if text in _OURS:
        raise ValueError(f"{text} cannot be changed by a template")
    return text


def _z_segment(text: str) -> str:
    if not re.match(r"Z[A-Z0-9]{2}\|", text):
        raise ValueError("a Z segment begins with its name, like ZDS|")
    return _template(text)


def _code(text: str) -> str:
    parts = text.split("^")
    if len(parts) != 3 or not all(part.strip() for part in parts):
        raise ValueError("write a code as CODE^TEXT^SYSTEM, such as 18748-4^Diagnostic imaging study^LN")
    return text


def _coded_key(text: str) -> str:
    if not re.fullmatch(r"[^|^]+\|[^|^]+", text):
        raise ValueError("write the code that is replaced as SYSTEM|CODE, such as SCT|118565006")
    return text


Seconds = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]
Namespace = Annotated[str, Field(max_length=20, pattern=r"^[\x20-\x7e]*$")]  # HD.1 of table 0361 and 0362
Template = Annotated[str, AfterValidator(_template)]
AccessionField = Literal["ORC-2", "OBR-2", "OBR-18", "OBR-19", "OBR-20", "OBR-21"]


class Hl7Destination(BaseModel):
    """An EHR or interface engine that takes ORU^R01 or MDM^T02 over MLLP."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["hl7"]
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]
    message: Literal["oru", "mdm"] = "oru"
    version: Annotated[str, AfterValidator(_one_of(VERSIONS, "an HL7 version that can be sent"))] = "2.5.1"
    charset: Annotated[str, AfterValidator(_one_of(CHARSETS, "a character set of HL7 table 0211 that can be sent"))] = (
        "UNICODE UTF-8"  # MSH-18
    )
    acknowledgement: Literal["original", "accept", "application", "deferred"] = "original"
    """`original`: MSH-15 and 16 are empty, the answer is AA, AE or AR. `accept`: AL and NE, the answer is CA, CE or CR.
    `application`: AL and AL, both answers. `deferred`: the same, but the application's is not waited for before the next
    message is sent, and must come. It may come at any time, on the same connection or to our own port."""
    application_timeout: Seconds = 600.0  # how long after CA the application's answer is waited for
    sending_application: Annotated[Namespace, Field(min_length=1)] = "HILUM"  # MSH-3
    sending_facility: Namespace = ""  # MSH-4
    receiving_application: Namespace = ""  # MSH-5
    receiving_facility: Namespace = ""  # MSH-6
    processing_id: Literal["P", "T", "D"] = "P"  # MSH-11: production, training, debugging
    time_zone: Annotated[str | None, AfterValidator(known_zone)] = None
    """Where the scanners are, e.g. Europe/Berlin; this machine's own zone where there is none. MSH-7 carries it, and it
    holds for every time of the message without an offset (HL7 v2.5.1 2.A.22): study times are local times."""
    timeout: Seconds = 30.0  # for the connection, and again for the acknowledgement
    tls: ClientTls | None = None
    coded: Literal["CE", "CWE"] | None = None  # data type of coded findings; CE below version 2.6, CWE from there on
    narrative: Literal["TX", "FT"] = "TX"  # a line in each OBX, or all of them formatted in one
    document: Literal["none", "ED", "RP"] | None = None
    """The PDF of the result set: in the message, by reference, not at all; None for `ED` in an MDM and `none` in an ORU."""
    references: bool = True  # an OBX RP for each DICOM object of the result set
    viewer_url: Template = ""  # a link to the images, such as https://viewer.example.org/?study={study_uid}
    service: Annotated[str, AfterValidator(_code)] = "18748-4^Diagnostic imaging study^LN"  # OBR-4 without an order
    service_from_order: bool = True  # OBR-4 is the procedure of the order, where the EHR has told of it
    accession_fields: tuple[AccessionField, ...] = ("OBR-18",)
    filler_number: Literal["own", "order", "accession"] = "own"
    """ORC-3 and OBR-3: a number of each result's own; the order's filler number, for receivers that file by that of the RIS;
    the accession number. Where the order gives none it is the result's own."""
    code_system: CodeSystem = "SCT"
    codes: dict[Annotated[str, AfterValidator(_coded_key)], Annotated[str, AfterValidator(_code)]] = {}
    """The site's own codes: SYSTEM|CODE -> CODE^TEXT^SYSTEM. The code that is replaced goes along as the alternate."""
    status: dict[
        ReportKind, Annotated[str, Field(pattern=r"^[A-Z]$")]
    ] = {}  # OBR-25 and OBX-11 where they are not P, F, C, X
    quality_flags: bool = True  # OBX-8 says which numbers the model was unsure of
    fields: dict[Annotated[str, AfterValidator(_place)], Template] = {}  # site quirks: PV1-2: "O"
    z_segments: tuple[Annotated[str, AfterValidator(_z_segment)], ...] = ()  # after the last OBX
    refusals: bool = (
        True  # whether it is told that images were not processed, where the rule or the model wants it told
    )
    test_message: bool = False  # `hilum check` sends an ORU^R01 with processing id T, and wants it acknowledged

    @model_validator(mode="after")
    def _final_is_confirmed(self) -> Self:
        for kind in (ReportKind.PRELIMINARY, ReportKind.CANCELLED, ReportKind.REFUSED):
            if self.status.get(kind, "") in ("F", "C"):
                raise ValueError(f"status.{kind.value}: F and C are for results that were confirmed or corrected")
        return self

    @property
    def two_answers(self) -> bool:
        """Whether CA is followed by what the application says."""
        return self.acknowledgement in ("application", "deferred")

    @property
    def document_form(self) -> str:
        """`none`, `ED` or `RP`."""
        return self.document or ("ED" if self.message == "mdm" else "none")

    @property
    def coded_type(self) -> str:
        """CE or CWE."""
        return self.coded or ("CWE" if self.at_least("2.6") else "CE")

    def at_least(self, version: str) -> bool:
        """Whether messages are of this version or a newer one."""
        return VERSIONS.index(self.version) >= VERSIONS.index(version)

    def status_of(self, kind: ReportKind) -> str:
        """OBR-25 and OBX-11."""
        return self.status.get(kind, STATUS[kind])


class ClientCredentials(BaseModel):
    """OAuth2 client credentials (RFC 6749 4.4)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token_url: Annotated[str, Field(pattern=_URL)]
    client_id: Annotated[str, Field(min_length=1)]
    client_secret_file: Path
    scope: str = ""


class FhirDestination(BaseModel):
    """An EHR that takes FHIR R4 transactions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["fhir"]
    url: Annotated[str, Field(pattern=_URL)]  # base of the server; no credentials
    oauth: ClientCredentials | None = None
    token_file: Path | None = None  # bearer token; read again for each request
    ca_file: Path | None = None
    timeout: Seconds = 60.0  # without taking or giving a byte
    time_zone: Annotated[str | None, AfterValidator(known_zone)] = None  # where the scanners are
    patient: Literal["search", "logical", "create"] = "search"
    """How the patient is named: by a search that the server must answer with exactly one (`Patient?identifier=`), by the
    identifier alone, or created where there is none."""
    refusals: bool = True  # whether it is told that images were not processed
    patient_system: str = ""  # the identifier system of patient ids at this server, such as urn:oid:1.2.3
    code_system: CodeSystem = "SCT"

    @field_validator("url")
    @classmethod
    def _without_slash(cls, url: str) -> str:
        return url.rstrip("/")

    @model_validator(mode="after")
    def _one_way_to_sign_in(self) -> Self:
        if self.oauth and self.token_file:
            raise ValueError("give either oauth, or token_file")
        return self


EhrDestination = Hl7Destination | FhirDestination
