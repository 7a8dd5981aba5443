"""The SDK's transport: what its client is told, and what becomes of its failures."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
from aiohttp import ClientConnectorError
from aiohttp.client_reqrep import ConnectionKey
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError
from transports import To, post, raw_message

from async_relay.aws.management_api import SdkTransport
from async_relay.aws.sdk import VerifyingSession
from async_relay.errors import Disconnected, Gone, PostError, Refused, ServerError, TimedOut, Unreachable

URL = "https://abc.example/prod"
HOST = ConnectionKey("abc.example", 443, True, True, None, None, None)


class Client:
    """Answers with a status, raises, or never comes back."""

    def __init__(self, answer: Any = 200) -> None:
        self.answer = answer
        self.ended = 0

    async def post_to_connection(self, **_request: Any) -> Any:
        try:
            if self.answer is None:
                await asyncio.Event().wait()
            await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
            self.ended += 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        return {"ResponseMetadata": {"HTTPStatusCode": self.answer}}


def refused(**details: Any) -> ClientError:
    answer: Any = {"Error": {"Code": "Odd"}, **details}
    return ClientError(answer, "PostToConnection")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (200, type(None)),
        (202, PostError),
        (404, Refused),
        (refused(ResponseMetadata={"HTTPStatusCode": 410}), Gone),
        (refused(), ServerError),
        (ConnectTimeoutError(endpoint_url=URL), Unreachable),
        (ProxyConnectionError(proxy_url=URL), Unreachable),
        (SSLError(endpoint_url=URL, error=ssl.SSLError("certificate")), Unreachable),
        (ReadTimeoutError(endpoint_url=URL), TimedOut),
        (TimeoutError(), TimedOut),
        (ResponseParserError("no JSON"), ServerError),
        (HTTPClientError(error="cut"), Disconnected),
        (ConnectionResetError(), Disconnected),
        (EndpointConnectionError(endpoint_url=URL, error=ClientConnectorError(HOST, OSError())), Unreachable),
        (EndpointConnectionError(endpoint_url=URL, error=ConnectionResetError()), Disconnected),
        (AttributeError("'list' object has no attribute 'get'"), ServerError),
        (ssl.SSLError(), Disconnected),
    ],
    ids=repr,
)
async def test_whatever_the_sdk_comes_to_is_an_answer(answer: Any, kind: type[PostError | None]) -> None:
    """A status, or one of ours for each of botocore's exceptions: nobody waits for ever."""
    found = await asyncio.wait_for(post(SdkTransport(Client(answer), 1.0), "a="), 2)
    assert isinstance(found, kind)
    assert kind is PostError or type(found) is kind


async def test_a_post_ends_with_its_own_timeout() -> None:
    """Whatever the SDK's are."""
    assert isinstance(await asyncio.wait_for(post(SdkTransport(Client(None), 0.05), "a="), 0.4), TimedOut)


async def test_the_end_waits_for_what_it_cut() -> None:
    """No task is left, and nobody is called."""
    client, called = Client(None), list[Any]()
    transport = SdkTransport(client, 5.0)
    for _ in range(3):
        transport.send(To("a="), raw_message(b"{}"), lambda *answer: called.append(answer))
    await asyncio.sleep(0)
    assert repr(transport) == "<3 busy>"
    await transport.end()
    assert (client.ended, called, repr(transport)) == (3, [], "<0 busy>")


async def test_the_sdk_tries_once_on_as_many_sockets_as_posts_may_be_in_flight() -> None:
    """With the post's timeout, the names of hosts checked, and the CAs that were given."""
    asked: dict[str, Any] = {}

    class Aws:
        async def sdk(self) -> Any:
            return self

        async def client(self, service: str, config: Any, **options: Any) -> Any:
            asked.update(options, service=service, config=config)
            return Client()

    aws: Any = Aws()
    await SdkTransport.open(aws, URL, region="eu-west-1", max_sockets=70, timeout=1.5, ca_file="/ca.pem")
    config = asked.pop("config")
    assert asked == {
        "service": "apigatewaymanagementapi",
        "endpoint_url": URL,
        "region_name": "eu-west-1",
        "verify": "/ca.pem",
    }
    assert (config.retries["total_max_attempts"], config.max_pool_connections) == (1, 70)
    assert (config.connect_timeout, config.read_timeout) == (1.5, 1.5)
    assert config.http_session_cls is VerifyingSession
