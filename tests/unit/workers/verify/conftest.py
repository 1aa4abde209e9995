"""Result sets over every case, each written once."""

import pytest

from tests.support.result_set import CASES, result_set


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """Name of a case -> its result set."""
    done = {}

    def get(name):
        if name not in done:
            done[name] = result_set(tmp_path_factory.mktemp("case") / name.replace(" ", "-"), CASES[name])
        return done[name]

    return get
