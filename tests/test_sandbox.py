"""Opening has the invocation's deadline: what cannot be opened in time hands everything back, and loses nothing."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aws_server import DESCRIBED, AwsServer, aws_server, content
from deployment import Context, incidents
from records import event as stream_event

from async_relay.aws import Aws, DynamoStore
from async_relay.errors import RelayError, SettingsError, StoreUnavailable
from async_relay.sandbox import Sandbox
from async_relay.services import AwsServices
from async_relay.settings import Settings
from async_relay.testing import Answer, Gateway, Hang
from async_relay.testing.scripts import Script

ONE_ROW = {"Items": [{"connectionId": {"S": "a="}}], "Count": 1}
JOBS = {"Records": [{"messageId": "m-1", "body": "{}"}, {"messageId": "m-2", "body": "{}"}]}
ROUTE = {"requestContext": {"connectionId": "a="}}
ALL_BACK = {"batchItemFailures": [{"itemIdentifier": "100"}, {"itemIdentifier": "101"}]}


@asynccontextmanager
async def sandbox(server: AwsServer, gateway: Gateway, **more: str) -> AsyncIterator[Sandbox]:
    environ = {
        "WS_ENDPOINT": gateway.endpoint,
        "CONNECTIONS_TABLE": "connections",
        "CONNECTIONS_INDEX": "by-shard",
        "AWS_REGION": "eu-west-1",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_ENDPOINT_URL": server.url,
        "AWS_CA_BUNDLE": gateway.ca_file,
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        "AWS_SESSION_TOKEN": "a-session-token",
        **more,
    }
    settings = Settings.from_env(environ)
    sandbox = Sandbox(settings, AwsServices(settings, environ))
    try:
        yield sandbox
    finally:
        await sandbox.close()


async def within(seconds: float, call: Awaitable[Any]) -> Any:
    """What the call comes to, in time, leaving no task but those of the servers."""
    start, before = time.monotonic(), asyncio.all_tasks()
    try:
        return await call
    finally:
        assert time.monotonic() - start < seconds
        left = asyncio.all_tasks() - before
        assert [each for each in left if "serve" not in str(each.get_coro())] == []


async def test_a_table_that_does_not_describe_itself_hands_all_back_in_time(gateway: Gateway) -> None:
    """DescribeTable hangs: records and jobs go back before the deadline, and the next invocation is served."""
    answers: list[Script] = [Hang(), Hang(), content(DESCRIBED), content(ONE_ROW)]
    async with aws_server(*answers) as server, sandbox(server, gateway) as opened:
        event = stream_event(*incidents(2))
        assert await within(1.0, opened.on_stream(event, Context(1.0))) == ALL_BACK
        back = await within(1.0, opened.on_jobs(JOBS, Context(1.0)))
        assert [each["itemIdentifier"] for each in back["batchItemFailures"]] == ["m-1", "m-2"]
        assert gateway.posts == {}
        assert await opened.on_stream(event, Context(20)) == {"batchItemFailures": []}
        assert gateway.posts["a="] == 2


async def test_a_table_that_cannot_be_described_hands_all_back(gateway: Gateway) -> None:
    """An answer that is no description, or none at all, is a table nobody can be served from."""
    async with aws_server(content({"Table": []})) as server, sandbox(server, gateway) as opened:
        assert await opened.on_stream(stream_event(*incidents(2)), Context(20)) == ALL_BACK


async def test_a_wrong_index_is_still_a_setting_to_mend(gateway: Gateway) -> None:
    """What no retry mends raises, and names the variable."""
    description: dict[str, Any] = {"Table": {"AttributeDefinitions": []}}
    async with aws_server(content(description)) as server, sandbox(server, gateway) as opened:
        with pytest.raises(SettingsError, match="CONNECTIONS_INDEX is 'by-shard'"):
            await opened.on_stream(stream_event(*incidents(2)), Context(20))


@pytest.mark.parametrize("slow", ["sdk", "credentials", "tls", "region"])
async def test_nothing_that_is_opened_takes_longer_than_there_is(
    slow: str, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK loads, credentials come, trust is read for ever: all goes back in time, nothing is posted."""

    async def hang(*_args: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(Aws, "load" if slow == "sdk" else slow, hang)
    more = {"TRANSPORT": "sdk"} if slow == "sdk" else {}
    answers = [content(DESCRIBED), content(ONE_ROW)]
    async with aws_server(*answers) as server, sandbox(server, gateway, **more) as opened:
        assert await within(1.0, opened.on_stream(stream_event(*incidents(2)), Context(1.0))) == ALL_BACK
    assert gateway.posts == {}


@pytest.mark.parametrize("call", [Sandbox.on_connect, Sandbox.on_disconnect])
async def test_a_client_is_refused_in_time_where_the_table_hangs(
    call: Callable[..., Awaitable[Any]], gateway: Gateway
) -> None:
    """$connect and $disconnect raise one sentence before their deadline, whether opening hangs or the call."""
    for answers in ([Hang()], [content(DESCRIBED), Hang()]):
        async with aws_server(*answers) as server, sandbox(server, gateway) as opened:
            with pytest.raises(StoreUnavailable, match="table connections did not answer in time"):
                await within(1.0, call(opened, ROUTE, Context(1.0)))


async def test_certificates_that_cannot_be_read_hand_all_back(gateway: Gateway) -> None:
    """AWS_CA_BUNDLE names no file: one sentence in the log, and nothing lost."""
    async with aws_server(content(DESCRIBED)) as server, sandbox(server, gateway, AWS_CA_BUNDLE="/nowhere") as opened:
        assert await opened.on_stream(stream_event(*incidents(2)), Context(20)) == ALL_BACK


async def test_the_sdk_tries_three_times_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that answers 500 is asked three times by the SDK, not four."""
    async with aws_server(Answer(500)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        aws = Aws(own_sockets=False)
        try:
            with pytest.raises(StoreUnavailable):
                await DynamoStore(aws.service("dynamodb"), "connections").count(1)
        finally:
            await aws.close()
        assert server.agents == ["sdk"] * 3


@pytest.mark.parametrize("index", ["by-shard", ""])
async def test_what_cannot_be_opened_goes_back_after_a_wait(gateway: Gateway, index: str) -> None:
    """Lambda may try again at once, so a trust file that is missing or a table that refuses must not cost hundreds."""
    async with aws_server(content({"Items": []})) as server:
        more = {"AWS_CA_BUNDLE": "/nonexistent.pem", "CONNECTIONS_INDEX": index, "AWS_ENDPOINT_URL": server.url}
        async with sandbox(server, gateway, **more) as box:
            waits: list[float] = []

            async def waited(end: float) -> None:
                waits.append(end)

            box._pacing.wait = waited  # type: ignore[method-assign]
            for _ in range(3):
                try:
                    assert await box.on_stream(stream_event(*incidents(2)), Context(5)) == ALL_BACK
                except RelayError:
                    assert index
            assert len(waits) == 3


@pytest.mark.parametrize(
    "ending", ["", "handler._sandbox = None; gc.collect()"], ids=["the process ends", "it is dropped"]
)
def test_a_sandbox_that_nobody_closes_leaves_no_complaint(ending: str) -> None:
    """The SDK's sockets are closed where the process ends after a failure that nobody could be served for."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        code = (
            "import gc, handler; from deployment import Context, incidents; from records import event; "
            f"print(handler.lambda_handler(event(*incidents(2)), Context(8.0))); {ending}"
        )
        environ = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "TRANSPORT": "sdk",
            "AWS_ENDPOINT_URL": nowhere,
            "WS_ENDPOINT": f"{nowhere}/prod",
            "CONNECTIONS_TABLE": "connections",
        }
        done = subprocess.run(  # noqa: S603 - our own code
            [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60, check=True
        )
    assert done.stdout.splitlines()[-1] == str(ALL_BACK)
    assert "Unclosed" not in done.stderr
    assert done.stderr == ""
