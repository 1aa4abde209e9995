"""python -m workers.sandbox    prints, as a JSON list, what this machine cannot take away from a model's process."""

from __future__ import annotations

import json
from pathlib import Path

from workers.sandbox.confine import confine
from workers.sandbox.room import Room

if __name__ == "__main__":
    print(json.dumps(confine(Room(readable=(), writable=Path("/nonexistent"), scratch_mib=1))))
