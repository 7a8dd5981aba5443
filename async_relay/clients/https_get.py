"""A JSON document by HTTPS from the issuer of tokens: bounded in time and size, whatever the other end does.

Rules
- Certificates are verified against ``AWS_CA_BUNDLE`` where it is set, else against the system's authorities.
- No redirect is followed, no proxy asked and nothing unpacked: what is said there is said there, or not at all.
- Every failure is ``KeysUnavailable``.
- aiohttp, which aiobotocore brings, is loaded when there is something to get: no relay pays for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from ..http.tls import trust
from .refusals import KeysUnavailable

#: Seconds for one document, name look-up, handshake and all: a client waits for it.
TIMEOUT = 3.0
#: Bytes of one document: a key takes one or two thousand.
LARGEST = 1_048_576


async def get_json(url: str, *, timeout: float = TIMEOUT, largest: int = LARGEST) -> Any:
    """What the document at ``url`` says; raises ``KeysUnavailable``."""
    import aiohttp

    try:
        async with asyncio.timeout(timeout):
            body = await _get(url, largest)
        return json.loads(body)
    except TimeoutError:
        raise KeysUnavailable(f"{url} did not answer within {timeout:g} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise KeysUnavailable(f"{url} cannot be had: {type(error).__name__}") from None
    except (ValueError, RecursionError):
        raise KeysUnavailable(f"{url} answers with something that is no JSON") from None


async def _get(url: str, largest: int) -> bytes:
    import aiohttp

    connector = aiohttp.TCPConnector(ssl=_tls(url), force_close=True)
    session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False)
    plain = {"Accept": "application/json", "Accept-Encoding": "identity"}
    async with session, session.get(url, headers=plain, allow_redirects=False) as response:
        if response.status != 200:
            raise KeysUnavailable(f"{url} answers with status {response.status}")
        body = bytearray()
        async for part in response.content.iter_any():
            body += part
            if len(body) > largest:
                raise KeysUnavailable(f"{url} answers with more than {largest:,} bytes")
    return bytes(body)


def _tls(url: str) -> ssl.SSLContext | bool:
    return _trust(os.environ.get("AWS_CA_BUNDLE") or None) if urlsplit(url).scheme == "https" else True


@lru_cache(maxsize=1)
def _trust(ca_bundle: str | None) -> ssl.SSLContext:
    """The authorities to trust; reading them takes 40 ms."""
    return trust(ca_bundle)
