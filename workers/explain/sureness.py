"""How sure a calibrated classifier is, in a sentence."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.domain.messages import MeasurementResult
from workers.infer.calibration import Calibration


def sureness(measurements: Iterable[MeasurementResult], calibration: Calibration) -> str:
    """The confidence of each finding, and what it rests on."""
    each = ", ".join(f"{item.name.meaning} {item.confidence}" for item in measurements if item.confidence)
    return (
        f"Confidence by calibrated probability: {each}; calibrated on {calibration.cases} cases, "
        f"expected error {calibration.error_after:.1%} on cases not seen ({calibration.error_before:.1%} before)."
    )
