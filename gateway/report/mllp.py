"""Messages to an EHR over MLLP: the `Ehr` port on the MLLP client, for callers that are threads."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence

from gateway.domain.errors import DestinationUnreachable
from gateway.domain.inbound import ApplicationAnswer
from gateway.domain.job import Delivery, Receipt, Verdict
from gateway.domain.ports import Clock, InboxLedger, Spool
from gateway.hl7.client import Hear, MllpClient, say
from gateway.observe.logs import log
from gateway.report.deferred import Patience, application_said
from gateway.report.settings import Hl7Destination
from gateway.report.trial import trial_message
from gateway.tls import client_context


class MllpEhr:
    """One destination. One message at a time, also between threads; the connection is kept between messages."""

    def __init__(self, destination: Hl7Destination, hear: Hear | None = None) -> None:
        """``hear`` is told of application acknowledgements that come late. Raises ConfigurationError where a TLS file cannot
        be used."""
        self._to = destination
        tls = client_context(destination.tls) if destination.tls else None
        self._client = MllpClient(
            destination.host,
            destination.port,
            timeout=destination.timeout,
            tls=tls,
            deferred=destination.acknowledgement == "deferred",
            hear=hear if destination.two_answers else None,
        )
        # The loop turns only while a message is on its way; between messages nothing runs.
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        weakref.finalize(self, self._loop.close)

    def send(self, message: bytes) -> Receipt:
        """Sends one message and waits for its acknowledgement, no longer than the destination's timeout for each."""
        with self._lock:
            return self._loop.run_until_complete(self._client.send(message))

    @property
    def connected(self) -> bool:
        """Whether a connection is kept for the next message."""
        return self._client.connected

    def listen(self) -> None:
        """Hears what applications have said on the kept connection since the last message."""
        with self._lock:
            self._loop.run_until_complete(self._client.listen())

    def echo(self) -> str:
        """Opens a connection and closes it; raises DestinationUnreachable. MLLP has no message that asks for nothing:
        only where the site has said so, a message for trials is sent, and must be accepted."""
        started = time.monotonic()
        with self._lock:
            try:
                self._loop.run_until_complete(self._client.connect())
            except TimeoutError:
                within = f"no {'TLS ' if self._to.tls else ''}connection within {self._client.timeout:g} s"
                raise DestinationUnreachable(f"{self._client.where}: {within}") from None
            except OSError as error:
                raise DestinationUnreachable(f"{self._client.where}: {say(error)}") from error
            finally:
                self._loop.run_until_complete(self._client.close())
        taken = f", {self._try_message()}" if self._to.test_message else ""
        return f"{self._client.where} accepts connections{taken}, {(time.monotonic() - started) * 1000:.0f} ms"

    def _try_message(self) -> str:
        receipt = self.send(trial_message(self._to, time.time()))
        self.close()
        if receipt.verdict is not Verdict.ACCEPTED:
            raise DestinationUnreachable(
                f"{self._client.where}: a test message (MSH-11 T) is answered {receipt.answer}"
            )
        return f"a test message is answered {receipt.answer}"

    def close(self) -> None:
        """Gives the connection back."""
        with self._lock:
            self._loop.run_until_complete(self._client.close())


def application_answers(
    to: Hl7Destination, spool: Spool, clock: Clock
) -> Callable[[Sequence[Delivery]], Mapping[str, Receipt]] | None:
    """What the receiver's application has said of messages that were accepted; None where it is not asked."""
    if not to.two_answers:
        return None
    patience = Patience(to.application_timeout, tolerant=to.acknowledgement == "application")

    def heard(item: Delivery) -> Receipt:
        return application_said(item, spool.path(item.draft.file).read_bytes(), patience, clock.now())

    return lambda batch: {item.draft.key: heard(item) for item in batch}


def into(ledger: InboxLedger) -> Hear:
    """Hears on behalf of a ledger. Bad news of a message that has ended is an error that somebody should look at."""

    def hear(answer: ApplicationAnswer) -> None:
        for job in ledger.hear_applications([answer]):
            log(stage="report").error("an application refuses what was delivered", job_id=job, answer=answer.code)

    return hear
