"""Takes due rows of the outbox to their destination and stores each answer; one dispatcher for each destination."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gateway.deliver.plan import next_try, proof_due
from gateway.domain.errors import HilumError
from gateway.domain.ids import DestinationName
from gateway.domain.job import Delivery, Receipt, Verdict
from gateway.domain.ports import Clock, Ehr, ObjectFile, OutboxLedger, Pacs, Spool
from gateway.observe.logs import log

_LEASE = 600.0  # seconds; longer than any one transfer may take
_POLL = 0.25  # seconds between looks into the outbox

Send = Callable[[Sequence[Delivery]], Mapping[str, Receipt]]
"""Sends a batch and says for each delivery's key what was answered; a key without an answer is tried again."""


Prove = Callable[[Sequence[Delivery]], Mapping[str, Receipt]]
"""Finds out for each delivery's key whether the destination really has it; one without a finding is left as it is."""


def through_pacs(pacs: Pacs, spool: Spool) -> Send:
    """Sends objects to a PACS, all of a batch in one go."""

    return lambda batch: pacs.store([_object(item, spool) for item in batch])


def by_reading_back(pacs: Pacs, spool: Spool) -> Prove:
    """Proves by looking at what the PACS has."""
    return lambda batch: pacs.read_back([_object(item, spool) for item in batch])


def _object(delivery: Delivery, spool: Spool) -> ObjectFile:
    draft = delivery.draft
    return ObjectFile(sop_class_uid=draft.sop_class_uid, sop_instance_uid=draft.key, path=spool.path(draft.file))


def through_ehr(ehr: Ehr, spool: Spool) -> Send:
    """Sends messages to an EHR one after the other. A message that it does not accept for now holds up only those that
    the ledger keeps in order behind it; where it does not answer at all, the rest is not tried."""

    def send(batch: Sequence[Delivery]) -> Mapping[str, Receipt]:
        receipts: dict[str, Receipt] = {}
        for item in batch:
            receipts[item.draft.key] = ehr.send(spool.path(item.draft.file).read_bytes())
            if receipts[item.draft.key].verdict is Verdict.RETRY and not receipts[item.draft.key].answered:
                break
        return receipts

    return send


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a destination can bear."""

    batch: int = 50  # objects at once
    per_second: float | None = None  # objects on average

    def rest(self, sent: int) -> float:
        """Seconds to rest after a batch."""
        return sent / self.per_second if self.per_second else 0.0


def _unwanted(batch: Sequence[Delivery]) -> Mapping[str, Receipt]:
    """The site has given up asking for proof while these waited for theirs."""
    answer = Receipt(verdict=Verdict.ACCEPTED, answer="stored; no proof is wanted any more")
    return {item.draft.key: answer for item in batch}


class Dispatcher:
    """Works off one destination's part of the outbox in a thread of its own; several may share a destination."""

    def __init__(
        self,
        destination: DestinationName,
        send: Send,
        ledger: OutboxLedger,
        clock: Clock,
        *,
        prove: Prove | None = None,
        listen: Callable[[], None] | None = None,
        limits: Limits = Limits(),
    ) -> None:
        """With ``prove`` nothing counts as delivered before it is proven to be there; ``listen`` takes in what the
        destination has said meanwhile of its own accord, before the proofs are looked at."""
        self._destination, self._send, self._ledger, self._clock = destination, send, ledger, clock
        self._prove, self._listen, self._limits = prove, listen, limits
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"deliver {destination}", daemon=True)
        self._log = log(stage="deliver", destination=destination)

    def start(self) -> None:
        """Begins to deliver."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Stops after the transfer that is going on; one that takes longer is repeated after the next start."""
        self._stopped.set()
        self._thread.join(timeout)

    def deliver_due(self) -> int:
        """Sends what is due now; returns how many rows were tried."""
        batch = self._ledger.claim_deliveries(self._destination, _LEASE, self._limits.batch)
        if not batch:
            return 0
        receipts = self._guarded(self._send, batch)
        for delivery in batch:
            receipt = receipts.get(delivery.draft.key) or Receipt(
                verdict=Verdict.RETRY, answer="not tried: an earlier one waits"
            )
            self._settle(delivery, receipt)
        return len(batch)

    def prove_due(self) -> int:
        """Asks for the proofs that are due now; returns how many rows were asked for."""
        if self._listen is not None:
            self._listen()
        batch = self._ledger.claim_proofs(self._destination, _LEASE, self._limits.batch)
        if not batch:
            return 0
        findings = self._guarded(self._prove or _unwanted, batch)
        for delivery in batch:
            if finding := findings.get(delivery.draft.key):
                due = proof_due(delivery, finding, self._clock.now(), random.random())  # noqa: S311
                self._ledger.settle_proof(delivery, finding, due)
                self._say("proof", delivery, finding)
                if due is None and finding.verdict is not Verdict.ACCEPTED:
                    self._say_dead(delivery, finding)
        return len(batch)

    def _guarded(self, act: Send | Prove, batch: Sequence[Delivery]) -> Mapping[str, Receipt]:
        try:
            return act(batch)
        # One destination's trouble, even a defect of ours, must not end its dispatcher: the rows wait and are tried again.
        except Exception as error:  # noqa: BLE001
            self._log.exception("delivery failed", error=type(error).__name__)
            answer = error.message if isinstance(error, HilumError) else f"internal error: {type(error).__name__}"
            return {item.draft.key: Receipt(verdict=Verdict.RETRY, answer=answer) for item in batch}

    def _settle(self, delivery: Delivery, receipt: Receipt) -> None:
        now = self._clock.now()
        first = delivery.first_try if delivery.first_try is not None else now
        again = next_try(delivery.attempts, first, now, random.random()) if receipt.verdict is Verdict.RETRY else None  # noqa: S311
        self._ledger.settle(delivery, receipt, again, proof_due=None if self._prove is None else now)
        self._say("delivery", delivery, receipt)
        if again is None and receipt.verdict in (Verdict.RETRY, Verdict.REJECTED):
            self._say_dead(delivery, receipt)

    def _say_dead(self, delivery: Delivery, receipt: Receipt) -> None:
        draft = delivery.draft
        self._log.error("dead letter", job_id=draft.job_id, role=draft.role, answer=receipt.answer)

    def _say(self, what: str, delivery: Delivery, receipt: Receipt) -> None:
        self._log.info(
            what,
            job_id=delivery.draft.job_id,
            role=delivery.draft.role,
            verdict=receipt.verdict.value,
            attempt=delivery.attempts,
            answer=receipt.answer,
        )

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                sent = self.deliver_due()
                busy = sent + self.prove_due()
            except HilumError as error:
                self._log.error("outbox cannot be read", error=error.message)
                sent = busy = 0
            self._stopped.wait(self._limits.rest(sent) if busy else _POLL)
