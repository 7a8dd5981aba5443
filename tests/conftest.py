"""What every test may rely on: made-up credentials, nothing of the machine's own AWS settings, a deployed handler."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
from artefacts import native_release, native_zip
from deployment import Deployed, new_queue, new_table
from servers import ministack, node_server
from transports import CREDENTIALS
from wire_documents import WATCH, watching

from async_relay.testing import Gateway

_OURS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "AWS_SESSION_TOKEN": "a-session-token",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


#: What a browser shows, how a benchmark goes on and what a loop counts: on a busy machine a look may come too early or
#: too late. Of these a test that fails is run once more, and named as RERUN. No test of what the relay promises is
#: among them: one that fails now and then has found something.
_LOOKS_AT_THE_RIGHT_MOMENT = ("browser/", "test_bench.py", "test_bursts.py", "test_cost.py", "test_load.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that may be run once more."""
    for item in items:
        if item.path.relative_to(Path(__file__).parent).as_posix().startswith(_LOOKS_AT_THE_RIGHT_MOMENT):
            item.add_marker(pytest.mark.flaky(reruns=1))


# No test is about how fast it is drawn or run: a busy machine is no mistake.
hypothesis.settings.register_profile("relay", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("relay")


@pytest.fixture(scope="session", autouse=True)
def the_wire_is_as_documented(pytestconfig: pytest.Config) -> Iterator[None]:
    """Whatever a test makes the relay send or read fits the schemas of docs/wire."""
    with watching() as pytestconfig.stash[WATCH]:
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """The test that sent or read something else fails, even where the code under test went on."""
    watch = item.config.stash[WATCH]
    watch.taken()
    result = yield
    if problems := watch.taken():
        pytest.fail("docs/wire does not allow this:\n" + "\n".join(problems), pytrace=False)
    return result


@pytest.fixture(scope="session", autouse=True)
def no_loop_by_accident() -> None:
    """The plugins ask for the current loop, and asyncio would make one for them that nobody closes."""
    asyncio.set_event_loop(None)


@pytest.fixture(autouse=True)
def the_logger_is_left_as_it_was() -> Iterator[None]:
    """Some tests silence it, and the next may look at what is logged."""
    logger = logging.getLogger("async_relay")
    before = logger.level, logger.disabled, logger.propagate, list(logger.handlers)
    yield
    logger.setLevel(before[0])
    _, logger.disabled, logger.propagate, logger.handlers = before


@pytest.fixture(autouse=True)
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "SSL_CERT", "POWERTOOLS_"))]:
        monkeypatch.delenv(name)
    for name, value in _OURS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def dynalite_url() -> Iterator[str]:
    with node_server("dynalite") as url:
        yield url


@pytest.fixture(scope="session")
def fauxqs_url() -> Iterator[str]:
    with node_server("fauxqs") as url:
        yield url


@pytest.fixture(scope="session")
def ministack_url() -> Iterator[str]:
    with ministack() as url:
        yield url


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return native_zip(tmp_path_factory)


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return native_release(tmp_path_factory)


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway(tls=True, credentials=CREDENTIALS, region="eu-west-1") as gateway:
        yield gateway


@pytest.fixture
def deployed(gateway: Gateway, moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    table = new_table(moto_url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    monkeypatch.setenv("AWS_CA_BUNDLE", gateway.ca_file)
    monkeypatch.setenv("WS_ENDPOINT", gateway.endpoint)
    monkeypatch.setenv("CONNECTIONS_TABLE", table)
    monkeypatch.setenv("MAX_CONCURRENCY", "40")
    deployed = Deployed(moto_url, table, new_queue(moto_url), new_queue(moto_url))
    yield deployed
    deployed.close()


@pytest.fixture
def with_queues(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> Deployed:
    monkeypatch.setenv("RETRY_QUEUE_URL", deployed.retry)
    monkeypatch.setenv("RETRY_BACKOFF_SECONDS", "0")
    monkeypatch.setenv("DEAD_LETTER_QUEUE_URL", deployed.letters)
    return deployed
