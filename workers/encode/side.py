"""On which side of the body something is: by the manifest, or by the images where they show one side."""

from __future__ import annotations

from gateway.bundle.manifest import Manifest
from gateway.bundle.part import CodeValue
from gateway.domain.messages import Code
from workers.load.volume import Volume

SIDES = {
    "L": Code(value="7771000", scheme="SCT", meaning="Left"),
    "R": Code(value="24028007", scheme="SCT", meaning="Right"),
    "B": Code(value="51440002", scheme="SCT", meaning="Bilateral"),
}
"""Image Laterality and Laterality (PS3.3 C.7.6.1, C.7.3.1) -> PS3.16 CID 244."""


def side_of(volume: Volume, site: CodeValue | None, stated: CodeValue | None) -> Code | None:
    """What the manifest states; else, of something with a site, the side that the images say they show."""
    if stated is not None:
        return stated.code()
    header = volume.first
    return None if site is None else SIDES.get(str(header.get("ImageLaterality") or header.get("Laterality") or ""))


def contradictions(volume: Volume, manifest: Manifest) -> tuple[str, ...]:
    """A sentence where images that show one side were given to a model that speaks of the other: one of the two is wrong."""
    header = volume.first
    shown = SIDES.get(str(header.get("ImageLaterality") or header.get("Laterality") or ""))
    if shown not in (SIDES["L"], SIDES["R"]):
        return ()
    opposite = SIDES["R" if shown == SIDES["L"] else "L"]
    stated = [(one.label, one.laterality) for one in manifest.output.segments]
    stated += [(one.name.meaning, one.laterality) for one in manifest.output.findings]
    said = ", ".join(name for name, side in stated if side is not None and side.value == opposite.value)
    if not said:
        return ()
    return (f"The images say that they show the {shown.meaning.lower()} side, the result the other: {said}.",)
