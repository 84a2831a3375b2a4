"""One warm process, and one in a sandbox, for all tests of a worker."""

import pytest

from course.classroom.engine import warm_sessions


@pytest.fixture(scope="session")
def warm():
    with warm_sessions([], jailed=False) as sessions:
        yield sessions


@pytest.fixture(scope="session")
def jailed():
    """None where this system has no sandbox."""
    try:
        with warm_sessions([], jailed=True) as sessions:
            yield sessions
    except RuntimeError:
        yield None
