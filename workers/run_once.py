"""One job in one process tree, without ledger or broker.

    python -m workers.run_once BUNDLE DESK [PART ...] < order.json

loads the model's libraries at once, then reads a `JobOrder` in one line. DESK is a folder of the caller's: inputs are laid
out in it, and the result objects are left in DESK/out/JOB_ID. Each PART is the bundle of a fusion's part. Standard output is
that of a model's process (`workers.child`): {"stage"} lines, at last {"outcome"} or {"error", "kind"}. Exit status 0 for a
complete result, 1 for a refused or failed one, 2 for no order.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.domain.errors import HilumError
from gateway.domain.messages import JobOrder, from_json, to_json
from workers.desk import Desk
from workers.supervisor import ModelProcess


def main() -> int:
    """Does the job on standard input; returns the exit status."""
    bundle, desk = Path(sys.argv[1]), Desk.lay_out(Path(sys.argv[2]))
    process = ModelProcess(desk.room([bundle, *map(Path, sys.argv[3:])]), lambda stage: _tell({"stage": stage}))
    try:
        process.start()
        return _run(process, bundle, desk)
    except HilumError as error:
        _tell({"error": error.message, "kind": type(error).__name__})
        return 1
    finally:
        process.close()


def _run(process: ModelProcess, bundle: Path, desk: Desk) -> int:
    from gateway.bundle.files import read_manifest  # the model's process is on its way meanwhile

    timeout = read_manifest(bundle).resources.timeout_s
    try:
        order = from_json(JobOrder, sys.stdin.readline())
    except ValueError as error:
        _tell({"error": f"no job order on standard input: {error}", "kind": "ValueError"})
        return 2
    outcome = process.run(_laid(order, bundle, desk), timeout=timeout)
    _tell({"outcome": json.loads(to_json(outcome))})
    return 0 if outcome.status == "complete" else 1


def _laid(order: JobOrder, bundle: Path, desk: Desk) -> JobOrder:
    """With inputs and results where the model's process may reach them."""
    output = desk.output(order.job_id)
    inputs = tuple(
        replace(item, path=str(desk.lay(order.job_id, Path(item.path), name=f"{number}.dcm")))
        for number, item in enumerate(order.inputs)
    )
    return replace(order, bundle=str(bundle), inputs=inputs, output_dir=str(output))


def _tell(message: dict[str, Any]) -> None:
    print(json.dumps(message, separators=(",", ":")), flush=True)


if __name__ == "__main__":
    sys.exit(main())
