"""What a site may say about messages from its EHR."""

from __future__ import annotations

from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from gateway.hl7.charset import codec_of
from gateway.hl7.settings import MllpListener, known_zone
from gateway.orders.reading import Conventions
from gateway.orders.requests import ACCESSION_FIELDS

Place = Annotated[str, Field(pattern=r"^(ORC|OBR|TQ1|IPC|ZDS)-[1-9][0-9]?(\.[1-9][0-9]?)?$")]


class OrderSettings(MllpListener):
    """The port for orders, patient updates, merges and reports."""

    processing_id: Literal["P", "T", "D"] = "P"  # MSH-11 of messages that count
    time_zone: Annotated[str | None, AfterValidator(known_zone)] = None  # of times without an offset
    accession: Annotated[tuple[Place, ...], Field(min_length=1)] = ACCESSION_FIELDS  # where to look, in this order

    def conventions(self) -> Conventions:
        """How messages are to be read."""
        return Conventions(
            zone=ZoneInfo(self.time_zone) if self.time_zone else None,
            processing_id=self.processing_id,
            accession_fields=self.accession,
        )

    @property
    def codec(self) -> str:
        """Of senders that name no character set."""
        return codec_of(self.charset) or "utf-8"
