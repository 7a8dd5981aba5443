"""A stand-in for the connections table: the calls a relay makes of it as DynamoDB answers them, and no more.

The whole cost of reading a page is the reader's: the shapes, the page key, the checksum header and TLS are DynamoDB's,
and a page is encoded once however often it is read. No signature is checked.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, cast
from zlib import crc32

import httptools

from async_relay.testing.trust import Certificates, Tls

from .peers.worker import connection_id

_DAY_MS = 86_400_000
_TYPE = "application/x-amz-json-1.0"


class Table:
    """Rows by connection id, served over HTTPS from ``async with`` on."""

    def __init__(self, *, page_rows: int = 5_000, tls: bool = True) -> None:
        self._page_rows = page_rows
        self._tls = tls
        self._created: dict[str, int] = {}
        self._arrays: set[str] = set()
        self._order: list[str] = []
        self._positions: dict[str, int] = {}
        self._pages: dict[int, bytes] = {}
        self._server: asyncio.Server | None = None
        self._operations: dict[str, Callable[[Any], bytes]] = {
            "Scan": self._scan,
            "PutItem": self._put_item,
            "DeleteItem": self._delete_item,
            "BatchGetItem": self._batch_get_item,
            "BatchWriteItem": self._batch_write_item,
        }
        self.calls: dict[str, int] = dict.fromkeys(self._operations, 0)
        self.facts: tuple[str, bytes] = ("", b"")

    async def __aenter__(self) -> Table:
        certificates = Certificates() if self._tls else None
        context = certificates.context(Tls()) if certificates else None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, ssl=context)
        port = self._server.sockets[0].getsockname()[1]
        scheme = "https" if certificates else "http"
        self.facts = (f"{scheme}://localhost:{port}", certificates.pem if certificates else b"")
        return self

    async def __aexit__(self, *_exc: object) -> None:
        assert self._server is not None
        self._server.close()

    def fill(self, count: int, frames: str = "") -> None:
        """Nothing but the ids from 0 to ``count``, a day old; ``frames`` is what each row says of what it reads."""
        for each in (self._created, self._arrays, self._order, self._positions):
            each.clear()
        ids = [connection_id(number) for number in range(count)]
        self.put(ids, int(time.time() * 1000) - _DAY_MS, ids if frames == "array" else ())

    def put(self, ids: Iterable[str], created_at: int, arrays: Iterable[str] = ()) -> None:
        """Write rows, some of clients that read ``arrays``; a row that was there before is a new one."""
        self._arrays.update(arrays)
        for each in ids:
            self._positions[each] = len(self._order)
            self._order.append(each)
            self._created[each] = created_at
        self._pages.clear()

    def remove(self, ids: Iterable[str]) -> None:
        """Delete rows; one that is not there counts as deleted."""
        for each in ids:
            self._created.pop(each, None)
        self._pages.clear()

    def ids(self) -> list[str]:
        """The connection ids of the rows."""
        return list(self._created)

    def counters(self) -> tuple[dict[str, int], float]:
        """How often each operation was called, and the CPU seconds of this process."""
        return self.calls, time.process_time()

    def answer(self, operation: str, body: bytes) -> bytes | None:
        """The body of an answer; None where the operation is not one of ours."""
        perform = self._operations.get(operation)
        if perform is None:
            return None
        self.calls[operation] += 1
        return perform(json.loads(body))

    def _scan(self, request: Any) -> bytes:
        after = request.get("ExclusiveStartKey")
        start = self._positions[after["connectionId"]["S"]] + 1 if after else 0
        if start not in self._pages:
            self._pages[start] = self._page(start)
        return self._pages[start]

    def _page(self, start: int) -> bytes:
        rows = islice(self._order, start, None)
        present = (each for at, each in enumerate(rows, start) if each in self._created and self._positions[each] == at)
        found = list(islice(present, self._page_rows))
        items = [self._item(each) for each in found]
        page: dict[str, Any] = {"Count": len(items), "Items": items, "ScannedCount": len(items)}
        if len(found) == self._page_rows and self._positions[found[-1]] + 1 < len(self._order):
            page["LastEvaluatedKey"] = {"connectionId": {"S": found[-1]}}
        return json.dumps(page, separators=(",", ":")).encode()

    def _item(self, row: str) -> dict[str, Any]:
        item = {"connectionId": {"S": row}, "createdAt": {"N": str(self._created[row])}}
        return item | {"frames": {"S": "array"}} if row in self._arrays else item

    def _batch_get_item(self, request: Any) -> bytes:
        ((name, asked),) = request["RequestItems"].items()
        rows = [key["connectionId"]["S"] for key in asked["Keys"]]
        items = [self._item(row) for row in rows if row in self._created]
        return json.dumps({"Responses": {name: items}, "UnprocessedKeys": {}}, separators=(",", ":")).encode()

    def _put_item(self, request: Any) -> bytes:
        item = request["Item"]
        self.put([item["connectionId"]["S"]], int(item["createdAt"]["N"]))
        return b"{}"

    def _delete_item(self, request: Any) -> bytes:
        self.remove([request["Key"]["connectionId"]["S"]])
        return b"{}"

    def _batch_write_item(self, request: Any) -> bytes:
        for requests in request["RequestItems"].values():
            self.remove(each["DeleteRequest"]["Key"]["connectionId"]["S"] for each in requests)
        return b'{"UnprocessedItems":{}}'


class _Connection(asyncio.Protocol):
    def __init__(self, table: Table) -> None:
        self._table = table
        self._parser = httptools.HttpRequestParser(self)
        self._operation = ""
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance: uvloop's transports do not descend from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._transport.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-amz-target":
            self._operation = value.decode().rpartition(".")[2]

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        answer = self._table.answer(self._operation, self._body)
        self._body = b""
        status = "200 OK" if answer is not None else "400 Bad Request"
        content = answer if answer is not None else b'{"__type":"UnknownOperationException"}'
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: {_TYPE}\r\nContent-Length: {len(content)}\r\n"
            f"x-amzn-RequestId: 0\r\nx-amz-crc32: {crc32(content)}\r\nConnection: keep-alive\r\n\r\n"
        )
        self._transport.write(head.encode() + content)
