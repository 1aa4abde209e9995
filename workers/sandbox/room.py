"""What a model's process is given, told from parent to child on its command line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Room:
    """Files that a model's process may use beside the libraries it runs on."""

    readable: tuple[Path, ...]  # bundles and inputs, with everything beneath
    writable: Path  # its scratch, where results are left; the process's home and temporary directory, too
    scratch_mib: int = 8192  # how much may lie there

    def to_json(self) -> str:
        """One word for a command line."""
        return json.dumps([[str(path) for path in self.readable], str(self.writable), self.scratch_mib])

    @classmethod
    def from_json(cls, text: str) -> Room:
        """Reads what `to_json` wrote."""
        readable, writable, scratch_mib = json.loads(text)
        return cls(
            readable=tuple(Path(path) for path in readable), writable=Path(writable), scratch_mib=int(scratch_mib)
        )
