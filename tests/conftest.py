import pytest

from tests.servers import started


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """One running server for all tests that leave it as they found it."""
    with started(tmp_path_factory.mktemp("data")) as server:
        yield server
