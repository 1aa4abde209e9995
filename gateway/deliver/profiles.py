"""What is known of common destinations: the keys that `profile:` sets where the site says nothing else.

Sources are in docs/delivery.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Profile = Literal["orthanc", "ohif", "slicer", "weasis", "dcm4chee", "minimal"]

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Stores every class; hides nothing that is rejected, but keeps the note beside it.
    "orthanc": {"results": ("seg", "sr", "sr-data", "pm", "sc", "ko", "pdf")},
    # An archive that people look into with OHIF. `sr-data` opens there, but can only be read.
    "ohif": {"results": ("seg", "sr", "pm", "sc", "pdf")},
    # Reads what dcmqi reads: geometry apart from the images, numbers tied to segments. Rejection means nothing to it.
    "slicer": {"results": ("seg", "sr-data", "pm"), "sr_profile": "strict", "rejection_notes": False},
    # Label maps only since 2026; BINARY always.
    "weasis": {"results": ("seg", "sr", "sc", "ko", "pdf")},
    # Stores every class, hides what is rejected (IOCM).
    "dcm4chee": {"results": ("seg", "sr", "sr-data", "sc", "pm", "ko", "pdf")},
    # Takes pictures and no more: the numbers are burned into them.
    "minimal": {
        "results": ("sc",),
        "transfer_syntax": "implicit",
        "rejection_notes": False,
        "limits": {"batch": 10},
    },
}


def with_preset(values: Any) -> Any:
    """The keys of a destination with those of its profile under them; what is no mapping is left to its validation."""
    if not isinstance(values, dict) or values.get("profile") not in PRESETS:
        return values
    return {**PRESETS[values["profile"]], **values}
