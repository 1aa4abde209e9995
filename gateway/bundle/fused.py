"""What a fusion and its parts must be to each other: the pinned builds, the same names, rules that can be asked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from gateway.bundle.files import bundle_digest, read_manifest
from gateway.bundle.fusion import FusedPart
from gateway.bundle.manifest import Manifest
from gateway.bundle.output import Output
from gateway.cel.names import indexed
from gateway.cel.program import Program, Unanswerable, compile_program
from gateway.domain.errors import BundleInvalid, ConfigurationError

_Found = TypeVar("_Found")


def find_parts(manifest: Manifest, bundles: Iterable[Path]) -> dict[str, Path]:
    """Name of each part -> its bundle among ``bundles``; raises BundleInvalid where a pinned build is not there.

    Empty for a bundle that is no fusion.
    """
    if manifest.fusion is None:
        return {}
    wanted = {part.run for part in manifest.fusion.parts}
    known = [(read_manifest(path).name, path) for path in dict.fromkeys(bundles) if _name_of(path) in wanted]
    return pinned(manifest, [(name, bundle_digest(path), path) for name, path in known])


def pinned(manifest: Manifest, known: Iterable[tuple[str, str, _Found]]) -> dict[str, _Found]:
    """Name of each part -> what is ``known`` of its build, by manifest name and digest; raises BundleInvalid."""
    there = list(known)
    found: dict[str, _Found] = {}
    for part in manifest.fusion.parts if manifest.fusion else ():
        named = [one for one in there if one[0] == part.run]
        if not named:
            raise BundleInvalid(
                f"{manifest.name}: its part {part.name} is {part.run}, which is not among the models: add it",
                code="part_missing",
            )
        same = [one for one in named if one[1] == part.digest]
        if not same:
            raise BundleInvalid(
                f"{manifest.name}: its part {part.name} is another build of {part.run} than there is: its digest is "
                f"{named[0][1][:12]}..., not {part.digest[:12]}...",
                code="not_pinned",
            )
        found[part.name] = same[0][2]
    return found


def check_parts(manifest: Manifest, parts: Mapping[str, Manifest]) -> None:
    """Raises BundleInvalid where a part cannot be combined with the others as the manifest says; ``parts`` by their names."""
    if manifest.fusion is None:
        return
    for part in manifest.fusion.parts:
        problem = _problem(manifest, part, parts[part.name])
        if problem:
            raise BundleInvalid(f"{manifest.name}: part {part.name} ({part.run}): {problem}", code="part")
    compile_rules(manifest, parts)


def _problem(manifest: Manifest, part: FusedPart, own: Manifest) -> str:
    if own.fusion is not None:
        return "a fusion is no part of another"
    if own.resources.memory_mib > manifest.resources.memory_mib:
        return (
            f"it takes {own.resources.memory_mib} MiB, and resources.memory_mib allows {manifest.resources.memory_mib}"
        )
    if own.resources.device not in ("any", manifest.resources.device):
        return f"it needs {own.resources.device}: say so in resources.device"
    assert manifest.fusion is not None  # noqa: S101
    output = manifest.output
    if output.kind != "segmentation" and manifest.fusion.combine == "rules":
        return ""
    if own.output.kind != output.kind or own.output.scope == "image":
        return f"it gives a {own.output.kind}, not a {output.kind} of a series or a study"
    if output.kind == "segmentation":
        return _segments_problem(part, own.output, output)
    return _numbers_problem(own.output, output)


def _segments_problem(part: FusedPart, own: Output, output: Output) -> str:
    there, here = {one.number for one in own.segments}, {one.number for one in output.segments}
    if not set(part.segments) <= here or not set().union(*part.segments.values(), ()) <= there:
        return "`segments` names a segment that is not defined"
    found = segments_of(part, own, output)
    missing = [one.label for one in output.segments if not found[one.number]]
    if missing:
        return f"it has no segment of the codes of {', '.join(missing)}: name one under `segments`"
    named = [number for numbers in found.values() for number in numbers]
    return "`segments` names one of its segments twice" if len(set(named)) < len(named) else ""


def _numbers_problem(own: Output, output: Output) -> str:
    there, here = _asked(own), _asked(output)
    if missing := [meaning for key, meaning in here.items() if key not in there]:
        return f"it says nothing of {', '.join(missing)}"
    if output.exclusive and (len(there) != len(here) or not own.exclusive):
        return "of findings that exclude each other each part must give all, and no other"
    return ""


def _asked(output: Output) -> dict[tuple[str, str, str], str]:
    """Codes, in order, of the numbers that a model gives -> what they are called."""
    found = {(one.name.scheme, one.name.value, "%"): one.name.meaning for one in output.findings}
    return found | {(one.name.scheme, one.name.value, one.unit.value): one.name.meaning for one in output.values}


def places(own: Output, output: Output) -> tuple[int, ...]:
    """For each number of a fusion where it stands among those of a part."""
    there = list(_asked(own))
    return tuple(there.index(key) for key in _asked(output))


def segments_of(part: FusedPart, own: Output, output: Output) -> dict[int, tuple[int, ...]]:
    """Number of each segment of a fusion -> those of a part that it is made of: as told, or of the same codes."""
    same = ("type", "anatomic_region", "laterality")
    return {
        spec.number: part.segments.get(
            spec.number,
            tuple(
                other.number
                for other in own.segments
                if all(_code(getattr(other, key)) == _code(getattr(spec, key)) for key in same)
            ),
        )
        for spec in output.segments
    }


def _code(value: Any) -> tuple[str, str] | None:
    return None if value is None else (value.scheme, value.value)


def compile_rules(manifest: Manifest, parts: Mapping[str, Manifest]) -> tuple[Program, ...]:
    """The rules of a fusion, tried on an example with all parts and without each that may be left out; raises BundleInvalid."""
    if manifest.fusion is None:
        return ()
    found = []
    for number, text in enumerate(manifest.fusion.rules, start=1):
        where = f"{manifest.name}: rule {number}"
        try:
            program = compile_program(text, where, {"parts": [part.name for part in manifest.fusion.parts]})
        except ConfigurationError as error:
            raise BundleInvalid(error.message, code="rule") from error
        example = {name: _example(own.output) for name, own in parts.items()}
        _check_keys(program, example, where)
        optional = [part.name for part in manifest.fusion.parts if part.missing == "leave_out"]
        for without in ("", *optional):
            values = {name: value for name, value in example.items() if name != without}
            try:
                check_answer(program.value({"parts": values}), manifest, values)
            except Unanswerable as problem:
                when = (
                    f" without the part {without}, which may be missing: ask `has(parts.{without})`" if without else ""
                )
                raise BundleInvalid(f"{where}: {why(problem)}{when}", code="rule") from problem
        found.append(program)
    return tuple(found)


def why(problem: Unanswerable) -> str:
    """For people."""
    mixed = "something that is not there, or values of kinds that do not go together"
    return mixed if "overload" in str(problem) else str(problem)


def check_answer(value: bool | float | str, manifest: Manifest, parts: Iterable[str]) -> None:
    """Raises Unanswerable for what is no answer of a rule: a name of a part, a probability or a condition, a number."""
    kind = manifest.output.kind
    if kind == "segmentation":
        if value not in tuple(parts):
            raise Unanswerable("its value is not the name of a part that has answered")
        return
    if isinstance(value, str) or (isinstance(value, bool) and kind == "regression"):
        raise Unanswerable(f"its value is no number, which a {kind} needs")
    if not math.isfinite(value):
        raise Unanswerable("its value is not finite")
    if kind == "classification" and not 0 <= value <= 1:
        raise Unanswerable("its value is no probability from 0 to 1")


def _example(output: Output) -> dict[str, dict[str, float]]:
    return {"findings": dict.fromkeys(_findings(output), 0.5), "values": dict.fromkeys(_values(output), 1.0)}


def _findings(output: Output) -> Iterator[str]:
    yield from (one.name.meaning for one in output.findings)


def _values(output: Output) -> Iterator[str]:
    """As `workers.fuse` calls them: numbers of a regression, boxes of each class, and measurements of segments."""
    yield from (one.name.meaning for one in output.values)
    if output.kind == "detection":
        yield from _findings(output)
    labels = {one.number: one.label for one in output.segments}
    yield from (f"{labels[one.segment]} {one.name.meaning}" for one in output.measurements if one.per == "segment")


def _check_keys(program: Program, example: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """CEL takes ``false && anything`` for false: a slip in a key would stay hidden behind it."""
    for part, kind, key in indexed(program.tree, "parts"):
        known = example.get(part, {}).get(kind)
        if known is None:
            raise BundleInvalid(f"{where}: parts.{part} has findings and values, not {kind!r}", code="rule")
        if key not in known:
            there = ", ".join(repr(name) for name in known) or "none"
            raise BundleInvalid(f"{where}: parts.{part}.{kind} has no {key!r}; there are {there}", code="rule")


def _name_of(bundle: Path) -> str:
    try:
        return read_manifest(bundle).name
    except BundleInvalid:
        return ""  # told where that bundle itself is asked for
