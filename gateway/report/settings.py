"""What a site may say about where HL7 messages go, and how they look."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from gateway.domain.units import parse_duration
from gateway.hl7.settings import known_zone
from gateway.tls import ClientTls

CHARSETS = {
    "ASCII": "ascii",
    **{f"8859/{part}": f"iso8859-{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
    "GB 18030-2000": "gb18030",
    "UNICODE UTF-8": "utf-8",
}
"""HL7 table 0211 (MSH-18) -> Python codec."""


def _supported_version(text: str) -> str:
    if text != "2.5.1":
        raise ValueError('only HL7 version "2.5.1" can be sent; write version: "2.5.1"')
    return text


def _known_charset(text: str) -> str:
    if text not in CHARSETS:
        raise ValueError(f"not a character set of HL7 table 0211 that can be sent; one of {', '.join(CHARSETS)}")
    return text


Seconds = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]
Namespace = Annotated[str, Field(max_length=20, pattern=r"^[\x20-\x7e]*$")]  # HD.1 of table 0361 and 0362


class Hl7Destination(BaseModel):
    """An EHR or interface engine that takes ORU^R01 over MLLP."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["hl7"]
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]
    version: Annotated[str, AfterValidator(_supported_version)] = "2.5.1"
    charset: Annotated[str, AfterValidator(_known_charset)] = "UNICODE UTF-8"  # MSH-18
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
