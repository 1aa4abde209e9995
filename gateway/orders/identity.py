"""Who is who after every merge, and how the EHR describes them (IHE RAD-12, PAM ITI-30). Pure.

A merge makes one identifier point to another. They count in the order in which they were made at their source, so that
the order of arrival does not matter: chains are followed, and a later merge the other way round takes the first back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from gateway.domain.context import Fact, Identifier, Merge, Order, Person

Name = tuple[str, str]
"""An identifier and its authority, in one way of writing."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What the EHR says of one patient."""

    identifiers: tuple[Identifier, ...] = ()  # PID-3, the asked-for one first
    name: str = ""
    birth_date: str = ""
    sex: str = ""
    names: frozenset[str] = frozenset()  # every name they, and those merged into them, ever had
    birth_dates: frozenset[str] = frozenset()


class Identities:
    """All that facts say about who is who."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        ordered = sorted(facts, key=lambda fact: fact.when)
        self._people = [
            (fact.when, person) for fact in ordered if (person := _person(fact)) is not None and person.identifiers
        ]
        merges = [fact.body for fact in ordered if isinstance(fact.body, Merge)]
        self._short: dict[str, str] = {}  # universal id -> namespace
        self._authorities: dict[str, set[str]] = defaultdict(set)  # id -> who has given it
        for identifier in self._mentioned(merges):
            if identifier.universal_id and identifier.authority:
                self._short.setdefault(identifier.universal_id, identifier.authority.casefold())
        for identifier in self._mentioned(merges):
            if authority := self._authority(identifier):
                self._authorities[identifier.id].add(authority)
        self._parents: dict[Name, Name] = {}
        self._written: dict[Name, Identifier] = {}
        for merge in merges:
            self._join(self.name(merge.prior), self.name(merge.surviving))
            self._written[self.name(merge.surviving)] = merge.surviving

    def name(self, identifier: Identifier) -> Name:
        """An identifier in one way of writing; one without authority is of the only authority that is known for it."""
        known = self._authorities.get(identifier.id, set())
        authority = self._authority(identifier) or (next(iter(known)) if len(known) == 1 else "")
        return identifier.id, authority

    def candidates(self, identifier: Identifier) -> list[Name]:
        """What an identifier can be: several where it names no authority and several have given it."""
        known = sorted(self._authorities.get(identifier.id, set()))
        if self._authority(identifier) or len(known) < 2:
            return [self.name(identifier)]
        return [(identifier.id, authority) for authority in known]

    def survivor(self, name: Name) -> Name:
        """Who somebody is today."""
        while name in self._parents:
            name = self._parents[name]
        return name

    def merges_of(self, name: Name) -> int:
        """How many merges led from somebody to who they are today."""
        count = 0
        while name in self._parents:
            name, count = self._parents[name], count + 1
        return count

    def describe(self, survivor: Name) -> Description:
        """What the EHR says of somebody who is still there; what it never said is empty."""
        own = [person for _, person in self._people if survivor in map(self.name, person.identifiers)]
        group = [
            person
            for _, person in self._people
            if any(self.survivor(self.name(item)) == survivor for item in person.identifiers)
        ]
        latest = own[-1].identifiers if own else ()
        return Description(
            identifiers=self._list(survivor, latest),
            name=_last(person.name for person in own),
            birth_date=_last(person.birth_date for person in own),
            sex=_last(person.sex for person in own),
            names=frozenset(person.name for person in group if person.name),
            birth_dates=frozenset(person.birth_date for person in group if person.birth_date),
        )

    def _list(self, survivor: Name, latest: Sequence[Identifier]) -> tuple[Identifier, ...]:
        """PID-3: the survivor first, then the others of the latest list as they are called today."""
        listed = {self.name(item): item for item in reversed(latest)}
        first = listed.get(survivor) or self._written.get(survivor)
        if first is None:
            return ()
        rest = [item for item in latest if self.survivor(self.name(item)) == self.name(item) != survivor]
        return tuple(dict.fromkeys((first, *rest)))

    def _join(self, prior: Name, surviving: Name) -> None:
        if prior == surviving:
            return
        if prior in self._ancestors(surviving):
            del self._parents[surviving]  # taken back: who was merged away is there again
        self._parents[prior] = surviving

    def _ancestors(self, name: Name) -> Iterator[Name]:
        while name in self._parents:
            name = self._parents[name]
            yield name

    def _authority(self, identifier: Identifier) -> str:
        return self._short.get(identifier.universal_id) or identifier.authority.casefold() or identifier.universal_id

    def _mentioned(self, merges: Sequence[Merge]) -> Iterator[Identifier]:
        for _, person in self._people:
            yield from person.identifiers
        for merge in merges:
            yield from (merge.prior, merge.surviving)


def _person(fact: Fact) -> Person | None:
    if isinstance(fact.body, Person):
        return fact.body
    return fact.body.person if isinstance(fact.body, Order) else None


def _last(values: Iterable[str]) -> str:
    return next((value for value in reversed(list(values)) if value), "")
