"""The judges: programs that others wrote, as their users run them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.result_set import CASES, ResultSet, written

JUDGE = Path(__file__).parent / "judge"
HYDRATED = ("axial", "oblique", "nothing found", "one of two found", "odd matrix")
"""Cases whose report goes through OHIF's adapter; Node needs seconds for each."""


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a program of the virtual environment or the system, to its end."""
    beside = Path(sys.executable).parent / program
    found = str(beside) if beside.exists() else shutil.which(program)
    assert found, f"{program} is not installed"
    command = [found, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120, check=False)


@pytest.fixture(scope="session")
def judge() -> Path:
    """The Node judge, installed where it is not yet; npm's own configuration says from where."""
    if not (JUDGE / "node_modules").is_dir():
        done = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"],
            cwd=JUDGE,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    return JUDGE


@pytest.fixture(scope="session")
def ohif(judge: Path) -> dict[tuple[str, str], Future[dict[str, object]]]:
    """(judge, case) -> what OHIF's loader makes of it; all are started at once, two at a time."""
    wanted = [("ohif_seg.mjs", name) for name in CASES] + [("ohif_sr.mjs", name) for name in HYDRATED]
    wanted += [("ohif_seg-labelmap.mjs", name) for name, case in CASES.items() if "seg-labelmap" in case.roles]
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
    results = {(script, name): pool.submit(judged, judge, script, written(name)) for script, name in wanted}
    pool.shutdown(wait=False)
    return results


def judged(judge: Path, script: str, found: ResultSet) -> dict[str, object]:
    """What a judge says of a result set; the script's name says of which object."""
    role = script.removeprefix("ohif_").removesuffix(".mjs")
    done = run("node", judge / script.replace("-labelmap", ""), found.source, found.path(role))
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    result: dict[str, object] = json.loads(done.stdout)
    return result
