"""What a site may say about where DICOM results go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gateway.domain.ids import AETitle
from gateway.domain.units import parse_duration
from gateway.tls import ClientTls

Role = Literal["seg", "sr", "sr-data", "sc", "pm", "ko", "pdf"]
"""What a result object is for; a role that a model does not produce is simply never planned."""

Title = Annotated[str, AfterValidator(AETitle)]
Seconds = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]
Results = Annotated[tuple[Role, ...], Field(min_length=1)]


class DicomTimeouts(BaseModel):
    """How long a DICOM peer may take, in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connect: Seconds = 10.0  # for the TCP connection, and the TLS handshake
    acse: Seconds = 20.0  # to answer an association request or release
    dimse: Seconds = 60.0  # to answer a request that it has received whole
    network: Seconds = 30.0  # without taking or giving a byte while it should


class DicomDestination(BaseModel):
    """A PACS that takes results by C-STORE."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["dicom"]
    ae_title: Title
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]
    results: Results = ("seg", "sr")
    calling_ae_title: Title | None = None  # the node's own AE title where there is none
    tls: ClientTls | None = None
    timeouts: DicomTimeouts = DicomTimeouts()
    verify: Literal["none", "readback", "commitment"] = "none"
    """`readback` asks with C-FIND on IMAGE level whether a stored object is there. `commitment` does the same for now:
    the answer to a storage commitment request may come on another association, which the node does not take yet."""


class DicomwebDestination(BaseModel):
    """A PACS that takes results by STOW-RS."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["dicomweb"]
    url: Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")]  # where /studies is below; no credentials
    results: Results = ("seg", "sr")
    verify: Literal["none", "readback"] = "none"  # `readback` retrieves each stored object and compares its content
    user: str | None = None
    password_file: Path | None = None
    token_file: Path | None = None  # bearer token; read again for each request
    ca_file: Path | None = None
    timeout: Seconds = 60.0  # without taking or giving a byte

    @model_validator(mode="after")
    def _one_way_to_sign_in(self) -> Self:
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together")
        if self.user and self.token_file:
            raise ValueError("give either user and password_file, or token_file")
        return self
