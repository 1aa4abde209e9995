"""What a site may say about where DICOM results go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gateway.deliver.profiles import Profile, with_preset
from gateway.domain.ids import AETitle
from gateway.domain.roles import ROLES, SEG, SEG_ALL_FRAMES, SEG_LABELMAP, SR, SR_STRICT, USUAL_FORM
from gateway.domain.units import parse_duration
from gateway.tls import ClientTls


def _known_role(text: str) -> str:
    if text not in ROLES:
        raise ValueError(f"no result is called {text!r}: write some of {', '.join(ROLES)}")
    return text


Role = Annotated[str, AfterValidator(_known_role), Field(json_schema_extra={"enum": list(ROLES)})]
Title = Annotated[str, AfterValidator(AETitle)]
Seconds = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]
Roles = Annotated[tuple[Role, ...], Field(min_length=1)]
HttpUrl = Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")]  # no credentials, no query


class Limits(BaseModel):
    """What a destination can bear."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    associations: Annotated[int, Field(ge=1, le=16)] = 1  # at the same time
    batch: Annotated[int, Field(ge=1, le=1000)] = 50  # objects over one association, or in one request
    rate: Annotated[float, Field(gt=0)] | None = None  # objects a second, on average


class ResultDestination(BaseModel):
    """What every destination of DICOM objects has: the forms it takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: Profile | None = None  # what is known of a product; every other key overrides it
    results: Roles = (SEG, SR)
    seg_encoding: Literal["binary", "labelmap"] = "binary"
    omit_empty_frames: bool = True  # of a binary segmentation
    sr_profile: Literal["editable", "strict"] = "editable"
    fallbacks: dict[Role, Roles] = {}  # what goes instead of a form that the destination does not take
    rejection_notes: bool = (
        True  # whether it is told by a Key Object Selection that a result is withdrawn (IHE RAD IOCM)
    )
    limits: Limits = Limits()

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        return with_preset(values)

    @model_validator(mode="after")
    def _forms_can_be_written(self) -> Self:
        if self.seg_encoding == "labelmap" and not self.omit_empty_frames:
            raise ValueError("omit_empty_frames: false is for seg_encoding: binary; a label map has one frame an image")
        return self

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles it is sent, each in the form it takes, without doubles."""
        return tuple(dict.fromkeys(self._form(role) for role in self.results))

    @property
    def substitutes(self) -> dict[str, tuple[str, ...]]:
        """Role -> the roles that go instead where it is not taken; of an unusual form, the usual one at least."""
        return {role: (USUAL_FORM[role],) for role in self.roles if role in USUAL_FORM} | self.fallbacks

    @property
    def forms(self) -> frozenset[str]:
        """The roles that are only written because it may need them."""
        instead = {role for roles in self.fallbacks.values() for role in roles}
        return frozenset(USUAL_FORM) & {*self.roles, *instead}

    def _form(self, role: str) -> str:
        if role == SEG:
            return (
                SEG_LABELMAP if self.seg_encoding == "labelmap" else SEG if self.omit_empty_frames else SEG_ALL_FRAMES
            )
        return SR_STRICT if role == SR and self.sr_profile == "strict" else role


class DicomTimeouts(BaseModel):
    """How long a DICOM peer may take, in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connect: Seconds = 10.0  # for the TCP connection, and the TLS handshake
    acse: Seconds = 20.0  # to answer an association request or release
    dimse: Seconds = 60.0  # to answer a request that it has received whole
    network: Seconds = 30.0  # without taking or giving a byte while it should


class CommitmentTimes(BaseModel):
    """How long a storage commitment report may take, in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timeout: Seconds = 600.0  # before we look for ourselves, and send again what is not there
    linger: Annotated[float, BeforeValidator(parse_duration), Field(ge=0)] = 2.0  # on the association that has asked


class RestApi(BaseModel):
    """The REST API of an Orthanc, to read back by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: HttpUrl
    user: str | None = None
    password_file: Path | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together")
        return self


class DicomDestination(ResultDestination):
    """A PACS that takes results by C-STORE."""

    kind: Literal["dicom"]
    ae_title: Title
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]
    calling_ae_title: Title | None = None  # the node's own AE title where there is none
    transfer_syntax: Literal["stored", "implicit"] = "stored"  # as written, or Implicit VR Little Endian
    tls: ClientTls | None = None
    timeouts: DicomTimeouts = DicomTimeouts()
    verify: Literal["none", "readback", "commitment"] = "none"
    commitment: CommitmentTimes = CommitmentTimes()
    orthanc: RestApi | None = None  # where set, stored objects are read back by it and not by C-GET or C-FIND


class DicomwebDestination(ResultDestination):
    """A PACS that takes results by STOW-RS."""

    kind: Literal["dicomweb"]
    url: HttpUrl  # where /studies is below
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
