"""docs/adopting.md, gone step by step on the local AWS, with the commands and the client of the guide itself.

The old functions are ``scan_and_loop.py``'s, on a WebSocket API and tables of their own; the relay is the template,
deployed beside them. Changes are written all the time, and clients come and go.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from adopting_guide import Before, Operator, code
from servers import program
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

_PATIENCE = 40  # seconds, for what takes one: the local AWS starts a process for each function
_PACE = 0.1  # seconds between two changes

#: What was written, and is shown: the incident it is a state of ("" for a remediation), and its time, which is unique.
Change = tuple[str, str]


# ---- Who writes, and who hears


class Pipeline:
    """Writes changes all the time: states of five incidents, one after the other, and remediations."""

    def __init__(self, operator: Operator) -> None:
        self._dynamodb = operator.client("dynamodb")
        self.written: list[Change] = []
        self.turn = asyncio.Lock()

    @property
    def newest(self) -> dict[str, str]:
        """The time of each incident's newest state."""
        return {about: time for about, time in self.written if about}

    async def write(self) -> None:
        for number in itertools.count():
            async with self.turn:
                await asyncio.to_thread(self._put, number)
            await asyncio.sleep(_PACE)

    def _put(self, number: int) -> None:
        time = f"2026-01-01T00:00:00.{number:06}Z"
        about = f"inc-{number % 5}" if number % 7 else ""
        if about:
            item = {"id": about, "incident_id": about, "status": f"S{number}", "created_at": "2026-01-01T00:00:00Z"}
            item |= {"updated_at": time, "sg": f"sg-{number}"}
        else:
            item = {"id": f"log-{number}", "action": "isolate", "target": f"sg-{number}", "timestamp": time}
        self._dynamodb.put_item(TableName="Incident", Item={name: {"S": value} for name, value in item.items()})
        self.written.append((about, time))


def change_of(message: dict[str, Any]) -> Change:
    return message.get("incident_id", ""), message.get("updated_at") or message["time"]


@dataclass
class Page:
    """A client: the frames it got, in their order, and how much was written ``before`` it had the history."""

    socket: Any
    before: int = 0
    frames: list[str] = field(default_factory=list)
    has_history: bool = False

    async def read(self) -> None:
        with suppress(ConnectionClosed):
            async for frame in self.socket:
                if "incident_history" in frame:
                    self.has_history = True
                else:
                    self.frames.append(frame)

    @property
    def changes(self) -> list[Change]:
        return [change_of(json.loads(frame)) for frame in self.frames]

    def heard(self, sender: Callable[[str], bool] = lambda _frame: True) -> set[Change]:
        return {change_of(json.loads(frame)) for frame in self.frames if sender(frame)}


def by_old(frame: str) -> bool:
    """The old function writes a blank behind its colons."""
    return '": ' in frame


def by_relay(frame: str) -> bool:
    return not by_old(frame)


async def until(met: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(_PATIENCE):
            while not met():  # noqa: ASYNC110 - what comes over sockets and what is in tables alike
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"in vain: {what}")


class World:
    """The writer and the clients on one loop."""

    def __init__(self, operator: Operator, api: str) -> None:
        self.pipeline = Pipeline(operator)
        self._url = f"ws{operator.url.removeprefix('http')}/_aws/execute-api/{api}/prod"
        self._readers: list[asyncio.Task[None]] = []
        self._sockets: list[Any] = []
        self.door = asyncio.Lock()
        self.visits = 0

    async def join(self) -> Page:
        async with self.door:
            return await self.enter()

    async def enter(self) -> Page:
        socket = await connect(self._url, open_timeout=_PATIENCE)
        self._sockets.append(socket)
        page = Page(socket)
        self._readers.append(asyncio.create_task(page.read()))
        await socket.send('{"action": "subscribe"}')
        await until(lambda: page.has_history, "the history comes")
        page.before = len(self.pipeline.written)
        return page

    async def hears_all(self, page: Page, sender: Callable[[str], bool] = lambda _frame: True) -> None:
        """Whatever is written from when it came until now arrives, from that sender."""
        wanted = set(self.pipeline.written[page.before :])
        await until(lambda: wanted <= page.heard(sender), f"{len(wanted - page.heard(sender))} of {len(wanted)} came")

    async def hears_last(self, page: Page, sender: Callable[[str], bool]) -> None:
        last = self.pipeline.written[-1]
        await until(lambda: last in page.heard(sender), "the last change comes")

    async def catches_up(self, page: Page, sender: Callable[[str], bool]) -> None:
        """What is written after now arrives, from that sender."""
        now = len(self.pipeline.written)
        await until(lambda: bool(set(self.pipeline.written[now:]) & page.heard(sender)), "the sender catches up")

    async def come_and_go(self) -> None:
        """Clients that stay for a second; every other one is cut off."""
        for number in itertools.count():
            page = await self.join()
            await asyncio.sleep(0.5)
            await self.hears_all(page)
            self.visits += 1
            if number % 2:
                page.socket.transport.abort()
            else:
                await page.socket.close()

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[World]:
        tasks = [asyncio.create_task(self.pipeline.write()), asyncio.create_task(self.come_and_go())]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            for socket in self._sockets:
                socket.transport.abort()
            ended += await asyncio.gather(*self._readers, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error


# ---- What is shown


def shown(frames: Sequence[str]) -> list[bool]:
    """Whether the client of step 3 shows each of these frames."""
    node = program("node")
    if node is None:
        pytest.skip("the guide's client needs Node.js, which neither the dev extra nor this machine has")
    script = f"""
let isShown;
const out = [], show = () => isShown = true;
{code(3, "js")}
for (const data of {json.dumps(list(frames))}) {{
  isShown = false;
  take(JSON.parse(data));
  out.push(isShown);
}}
console.log(JSON.stringify(out));
"""
    done = subprocess.run([node, "-"], input=script, capture_output=True, text=True, check=True)  # noqa: S603
    answers: list[bool] = json.loads(done.stdout)
    return answers


def complaints(came: Sequence[tuple[Change, bool]], wanted: set[Change]) -> Iterator[str]:
    """What is wrong with what came to a client, and was shown or not: each change once, none behind a newer state."""
    newest: dict[str, str] = {}
    settled: set[Change] = set()
    for (about, time), is_shown in came:
        change, is_late = (about, time), bool(about) and time < newest.get(about, "")
        if is_shown and change in settled:
            yield f"{change} is shown again"
        if is_shown and is_late:
            yield f"{change} is shown behind a newer one"
        if is_shown and about:
            newest[about] = time
        if is_shown or is_late:
            settled.add(change)
    if lost := wanted - settled:
        yield f"{len(lost)} lost, as {min(lost)}"


def nameless(frame: str) -> str:
    """As the old function sends it without step 2."""
    message = json.loads(frame)
    if by_old(frame):
        message.pop("event_id", None)
        message.pop("sequence", None)
    return json.dumps(message)


def picture(frames: Sequence[str]) -> dict[str, str]:
    """What a page that only merges states ends with: the time of each incident's state."""
    return dict(change_of(message) for message in map(json.loads, frames) if "incident_id" in message)


@pytest.mark.end_to_end
async def test_the_guide_loses_nothing(ministack_url: str) -> None:
    """From the old function to the relay, back and over again: whoever stays shows each change once, in order."""
    operator = Operator(ministack_url)
    before = Before(operator)
    before.make()
    before.offer_relay()
    operator.known["API_ID"] = before.api
    async with World(operator, before.api).alive() as world:
        stay = [await world.join()]
        await world.catches_up(stay[0], by_old)
        await _prepare(operator, before, stay[0])
        await _deploy_beside(operator, world, stay)
        await _switch_and_back(operator, world, stay)
        async with world.pipeline.turn:
            for page in stay:
                await world.hears_all(page)
    assert world.visits > 2
    for page in stay:
        wanted = set(world.pipeline.written[page.before :])
        for frames in page.frames, list(map(nameless, page.frames)):
            came = zip(page.changes, shown(frames), strict=True)
            assert list(complaints(list(came), wanted)) == []


async def _prepare(operator: Operator, before: Before, page: Page) -> None:
    """Steps 1 and 2; what is shown in the end is by step 3."""
    operator.known["STREAM_ARN"], operator.known["OLD_MAPPING"] = await operator.follow(1)
    await asyncio.to_thread(before.change, code(2, "py"))
    await until(lambda: any("event_id" in frame for frame in page.frames), "step 2 is seen")


async def _deploy_beside(operator: Operator, world: World, stay: list[Page]) -> None:
    """Steps 4 to 6: with nobody listening, with one client, with everybody."""
    *_, operator.known["RELAY_MAPPING"] = await operator.follow(4)
    async with world.door:
        present = operator.connections()
        canary = await world.enter()
        (operator.known["CONNECTION_ID"],) = operator.connections() - present
    stay.append(canary)
    await operator.follow(5)
    written = len(world.pipeline.written)
    await world.catches_up(canary, by_relay)
    assert not any(map(by_relay, stay[0].frames))

    await operator.follow(6)
    for page in stay:
        await world.catches_up(page, by_relay)
    async with world.pipeline.turn:
        for page in stay:
            await world.hears_all(page, by_old)
            await world.hears_last(page, by_relay)
            assert picture(page.frames).items() <= world.pipeline.newest.items()
    assert stay[0].heard(by_relay) <= set(world.pipeline.written[written:]), "what the stream held went to nobody"


async def _switch_and_back(operator: Operator, world: World, stay: list[Page]) -> None:
    """Steps 8 to 11."""
    await operator.follow(8)
    await _only(by_relay, world, stay)
    stay.append(await world.join())

    old_on, relay_off = operator.commands(9)
    await asyncio.to_thread(operator.type, old_on)
    for page in stay:
        await world.catches_up(page, by_old)
    await asyncio.to_thread(operator.type, relay_off)
    await _only(by_old, world, stay)

    relay_on, old_off = operator.commands(10)
    await asyncio.to_thread(operator.type, relay_on)
    for page in stay:
        await world.catches_up(page, by_relay)
    await asyncio.to_thread(operator.type, old_off)
    await operator.follow(11)
    await _only(by_relay, world, stay)


async def _only(sender: Callable[[str], bool], world: World, stay: Sequence[Page]) -> None:
    """Once what was under way is over, this sender alone is heard, and all of it by everybody.

    The local AWS serves one batch at a time: what comes from this sender comes after the other's last.
    """
    for page in stay:
        await world.catches_up(page, sender)
    begun = [len(page.frames) for page in stay]
    for page in stay:
        await world.hears_all(page)
        await world.catches_up(page, sender)
    assert all(map(sender, (frame for page, count in zip(stay, begun, strict=True) for frame in page.frames[count:])))


def test_whatever_is_wrong_with_what_came_is_said() -> None:
    """A change that was lost, one that is shown twice, and one that is shown behind a newer one."""
    old, log, new = ("i", "1"), ("", "2"), ("i", "3")
    wanted = {old, log, new}
    assert list(complaints([(old, True), (old, False), (log, True), (new, True)], wanted)) == []
    assert list(complaints([(new, True), (old, False), (log, True)], wanted)) == []
    assert list(complaints([(old, True), (log, False), (new, True)], wanted)) == ["1 lost, as ('', '2')"]
    assert list(complaints([(old, False), (log, True), (new, True)], wanted)) == ["1 lost, as ('i', '1')"]
    assert list(complaints([(log, True), (log, True)], {log})) == ["('', '2') is shown again"]
    assert list(complaints([(new, True), (old, True)], set())) == ["('i', '1') is shown behind a newer one"]


def relays(number: int, **more: Any) -> dict[str, Any]:
    """A state as the relay sends it."""
    state = {"kind": "incident_update", "incident_id": "i-1", "updated_at": f"2026-01-01T00:00:{number:02}Z"}
    return {**state, "event_id": f"e-{number}", "sequence": str(number), **more}


def olds(number: int, **more: Any) -> dict[str, Any]:
    """The same from the old function without step 2: nulls, other keys first, and no names."""
    state = {name: value for name, value in relays(number).items() if name not in ("event_id", "sequence")}
    return {"severity": None, **dict(reversed(state.items())), **more}


LOG = {"kind": "remediation", "action": "isolate", "time": "2026-01-01T00:00:01Z"}


@pytest.mark.parametrize(
    ("came", "are_shown"),
    [
        pytest.param([relays(1), relays(1), relays(2)], [0, 2], id="a repeat"),
        pytest.param([olds(1), relays(1), relays(2)], [0, 2], id="the old function first"),
        pytest.param([relays(1, position="p", tenant="t"), olds(1), olds(2)], [0, 2], id="the relay first"),
        pytest.param([relays(10), relays(9)], [0], id="a late older state"),
        pytest.param([relays(10), olds(9)], [0], id="a late older state of the old function"),
        pytest.param([olds(10), relays(9)], [0], id="a late older state after the old function's"),
        pytest.param([relays(1), relays(2, updated_at=relays(1)["updated_at"])], [0, 1], id="two that say the same"),
        pytest.param([LOG, {**LOG, "event_id": "e", "sequence": "1"}, LOG], [0], id="a remediation"),
        pytest.param([relays(2), relays(1, incident_id="i-2"), LOG], [0, 1, 2], id="different things"),
    ],
)
def test_the_client_of_step_3_shows_each_change_once_and_only_what_is_newer(
    came: list[dict[str, Any]], are_shown: list[int]
) -> None:
    """By names where there are any, else by what is said."""
    answers = shown([json.dumps(each) for each in came])
    assert [index for index, is_shown in enumerate(answers) if is_shown] == are_shown
