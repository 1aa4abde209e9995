"""One job in one process tree, without ledger or broker.

    python -m workers.run_once < order.json

reads a `JobOrder`, prints {"stage": ...} lines on standard error as it goes and the `Outcome` on standard output. Exit
status 0 for a complete result, 1 for a refused or failed one (the latter prints {"error", "kind"}), 2 for no order.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from gateway.domain.errors import HilumError
from gateway.domain.messages import JobOrder, from_json, to_json
from gateway.manifest import read_manifest
from workers.sandbox.room import Room
from workers.supervisor import ModelProcess


def main() -> int:
    """Does the job on standard input; returns the exit status."""
    try:
        order = from_json(JobOrder, sys.stdin.read())
    except ValueError as error:
        print(json.dumps({"error": f"no job order on standard input: {error}", "kind": "ValueError"}))
        return 2
    process = ModelProcess(_room(order), _show)
    try:
        timeout = read_manifest(Path(order.bundle)).resources.timeout_s
        outcome = process.run(order, timeout=timeout)
    except HilumError as error:
        print(json.dumps({"error": error.message, "kind": type(error).__name__}))
        return 1
    finally:
        process.close()
    print(to_json(outcome))
    return 0 if outcome.status == "complete" else 1


def _room(order: JobOrder) -> Room:
    inputs = dict.fromkeys(Path(item.path) for item in order.inputs)
    return Room(readable=(Path(order.bundle), *inputs), writable=Path(order.output_dir))


def _show(stage: str) -> None:
    print(json.dumps({"stage": stage}), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
