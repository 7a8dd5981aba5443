"""Clients that read arrays: the same promises message by message, for a few posts."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from lambda_models import EPOCH, still_running, virtual_time, wall_clock

from async_relay.delivery.admission import Admission
from async_relay.delivery.broadcaster import Broadcaster, Limits
from async_relay.delivery.outbox import Queues
from async_relay.delivery.rate import Rate
from async_relay.delivery.relay import Relay
from async_relay.delivery.report import Report
from async_relay.delivery.settlement import RequeuePolicy
from async_relay.errors import Forbidden, Refused, ServerError, TimedOut, TooLarge
from async_relay.testing.memory import NEVER, OK, MemoryQueue, MemoryStore, MemoryTransport, Reply, messages_in
from async_relay.wire.frames import FRAME_BYTES, Frame
from async_relay.wire.jobs import Client, Job, Shard
from async_relay.wire.messages import MAX_POST_BYTES, Message

pytestmark = virtual_time

#: Of these messages so many fit one frame of the scenes below.
IN_A_FRAME = 4
ROOM = 1_024


def messages(count: int, **more: str) -> tuple[Message, ...]:
    return tuple(
        Message.encode({"kind": "remediation", "event_id": f"e{at}", "sequence": str(at), "x": "x" * 150, **more})
        for at in range(count)
    )


def ids(*numbers: int) -> list[str]:
    return [f"e{number}" for number in numbers]


Script = Callable[[str, Message], Reply]


class Scene:
    """A relay with small frames over the doubles, and each post a client was sent, as the messages in it."""

    def __init__(
        self,
        script: Script = lambda _id, _post: OK,
        *,
        admission: Admission | None = None,
        bound: int = 100,
        ceiling: float | None = None,
        frame_bytes: int = ROOM,
    ) -> None:
        self.script = script
        self.store = MemoryStore()
        self.transport = MemoryTransport(self._answer)
        self.retry, self.letters = MemoryQueue(), MemoryQueue()
        self.posts: dict[str, list[list[str]]] = {}
        self.bodies: dict[str, list[bytes]] = {}
        self.broadcaster = Broadcaster(
            self.transport,
            self.store,
            Limits(bound, 3.0, frame_bytes),
            Rate(ceiling),
            Random(1),
            wall_clock,
            admission or Admission(),
        )
        self.relay = Relay(self.broadcaster, Queues(self.retry, self.letters), RequeuePolicy(0), wall_clock=wall_clock)

    def _answer(self, connection_id: str, post: Message) -> Reply:
        self.posts.setdefault(connection_id, []).append([each.event_id for each in messages_in(post)])
        self.bodies.setdefault(connection_id, []).append(post.body)
        return self.script(connection_id, post)

    def add(self, *connection_ids: str, **attributes: Any) -> None:
        self.store.add(*connection_ids, frames="array", **attributes)

    async def broadcast(self, *jobs: Job, seconds: float = 30.0) -> Report:
        report = await self.broadcaster.broadcast(jobs, seconds)
        assert not still_running()
        assert report.posts == sum(map(len, self.posts.values()))
        return report

    async def everybody(self, *found: Message, seconds: float = 30.0) -> Report:
        return await self.broadcast(Job(found, shard=Shard()), seconds=seconds)

    def got(self, connection_id: str) -> list[str]:
        return [each.event_id for each in self.transport.received[connection_id]]


class Failing:
    """Answers one post of each client with a status, counted from 1, and all others with 200."""

    def __init__(self, status: int, nth: int, *, times: int = 1, arrives: bool = False) -> None:
        self.reply = Reply(status, NEVER if status == 200 else 0.0, arrives=arrives)
        self.turns = range(nth, nth + times)
        self.seen: Counter[str] = Counter()

    def __call__(self, connection_id: str, _post: Message) -> Reply:
        self.seen[connection_id] += 1
        return self.reply if self.seen[connection_id] in self.turns else OK


def refusing(status: int, *bad: str, client: str = "") -> Script:
    """Refuses every post that has one of these messages in it, to clients whose names begin like this."""

    def script(connection_id: str, post: Message) -> Reply:
        found = {each.event_id for each in messages_in(post)} & set(bad)
        return Reply(status if found and connection_id.startswith(client) else 200)

    return script


# ── what is posted ──────────────────────────────────────────────────────────────────────────────


async def test_who_reads_arrays_gets_as_many_messages_as_fit_a_post() -> None:
    """And everybody else one object a post, as ever; each message is counted, and each post."""
    scene = Scene()
    scene.add("a=", "b=")
    scene.store.add("old=")
    scene.store.add("odd=", frames="arrays")
    report = await scene.everybody(*messages(10))
    assert scene.posts["a="] == scene.posts["b="] == [ids(0, 1, 2, 3), ids(4, 5, 6, 7), ids(8, 9)]
    assert scene.posts["old="] == scene.posts["odd="] == [[each] for each in ids(*range(10))]
    assert [body[:1] for body in scene.bodies["old="]] == [b"{"] * 10
    assert report.outcomes[0].delivered == [4] * 10
    assert report.figures()["delivered"] == 40
    assert report.figures()["posts"] == 26


async def test_clients_in_the_same_place_get_the_same_bytes() -> None:
    """Whatever their rows say: a frame is made once, and not once a client."""
    scene = Scene(admission=Admission(by_tenant=True))
    scene.add("a=", tenants=frozenset({"acme"}))
    scene.add("b=", tenants=frozenset({"acme", "globex"}), interest='{"kind":["remediation"]}')
    await scene.everybody(*messages(4, tenant="acme"))
    (one,), (other,) = scene.bodies["a="], scene.bodies["b="]
    assert one is other


async def test_a_single_message_is_the_object_that_everybody_gets() -> None:
    """Where a batch has one, where one is left, and where another would not fit: nothing is made for it."""
    large = Message.encode({"event_id": "large", "x": "x" * ROOM})
    scene = Scene()
    scene.add("a=")
    await scene.everybody(*messages(IN_A_FRAME), large, *messages(1))
    assert scene.posts["a="] == [ids(0, 1, 2, 3), ["large"], ["e0"]]
    assert scene.bodies["a="][1] is large.body
    scene.posts.clear()
    await scene.everybody(large)
    assert scene.bodies["a="][3] is large.body


async def test_the_largest_frame_is_the_largest_post_there_is() -> None:
    """With FRAME_BYTES at its bound: 131,072 bytes pass, and no byte more is ever tried."""
    filler = [Message.encode({"n": at, "x": "x" * 16_000}) for at in range(8)]
    room = MAX_POST_BYTES - sum(len(each.body) + 1 for each in filler) - 2
    last = Message.encode({"n": 8, "x": "x" * (room - len(Message.encode({"n": 8, "x": ""}).body))})
    scene = Scene(frame_bytes=MAX_POST_BYTES)
    scene.add("a=")
    report = await scene.everybody(*filler, last, *messages(2))
    assert [len(body) == MAX_POST_BYTES for body in scene.bodies["a="]] == [True, False]
    assert not report.outcomes[0].rejected
    assert Limits(1).frame_bytes == FRAME_BYTES


async def test_frames_hold_what_the_row_lets_its_client_have() -> None:
    """Tenants and interest; what is filtered leaves no gap, and a client with nothing left is done, not left over."""
    payloads = [{"tenant": "acme" if at % 2 else "globex", "severity": "HIGH" if at < 9 else "LOW"} for at in range(12)]
    found = tuple(Message.encode({"event_id": f"e{at}", "x": "x" * 150, **each}) for at, each in enumerate(payloads))
    scene = Scene(admission=Admission(by_tenant=True))
    scene.add("acme=", tenants=frozenset({"acme"}))
    scene.add("high=", tenants=frozenset({"acme"}), interest='{"severity":["HIGH"]}')
    scene.add("nobody=")
    scene.add("other=", tenants=frozenset({"initech"}))
    report = await scene.everybody(*found)
    assert scene.posts == {"acme=": [ids(1, 3, 5, 7), ids(9, 11)], "high=": [ids(1, 3, 5, 7)]}
    assert not report.outcomes[0].undelivered
    assert report.outcomes[0].delivered == [0, 2, 0, 2, 0, 2, 0, 2, 0, 1, 0, 1]


async def test_whoever_serves_a_job_asks_the_row_whether_its_client_reads_arrays() -> None:
    """A job says nothing of it; a client without a row gets objects."""
    scene = Scene()
    scene.add("a=")
    await scene.broadcast(Job(messages(6), (Client("a=", None, 1), Client("rowless="))))
    assert scene.posts["a="] == [ids(1, 2, 3, 4), ["e5"]]
    assert scene.posts["rowless="] == [[each] for each in ids(*range(6))]


async def test_a_client_that_stays_with_a_new_token_still_reads_arrays() -> None:
    """Its lane's time ran out after the first frame; its row, looked up once more, says that it may stay."""

    def slow(_id: str, _post: Message) -> Reply:
        scene.store.write("new=", {"frames": "array", "expiresAt": int(EPOCH) + 600})
        return Reply(200, 2.0)

    scene = Scene(slow)
    scene.add("new=", expiresAt=int(EPOCH) + 1)
    await scene.everybody(*messages(6))
    assert scene.store.looked_up == 1
    assert scene.posts["new="] == [ids(0, 1, 2, 3), ids(4, 5)]


async def test_a_ping_is_an_object() -> None:
    """One message, whoever it is for."""
    scene = Scene(admission=Admission(for_all=True))
    scene.add("a=")
    await scene.everybody(Message.encode({"type": "ping", "timestamp": 1}))
    assert scene.bodies["a="] == [b'{"type":"ping","timestamp":1}']


# ── what goes wrong ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [500, 0, 429, 403, 503])
async def test_a_frame_that_failed_is_posted_again_as_it_was(status: int) -> None:
    """In its turn: nothing behind it goes first, and nothing before it comes again."""
    scene = Scene(Failing(status, 2, times=2))
    scene.add("a=", "b=")
    report = await scene.everybody(*messages(10))
    assert scene.posts["a="] == [ids(0, 1, 2, 3), *[ids(4, 5, 6, 7)] * 3, ids(8, 9)]
    assert scene.got("a=") == scene.got("b=") == ids(*range(10))
    assert report.outcomes[0].delivered == [2] * 10


async def test_a_frame_whose_answer_was_lost_comes_again_whole() -> None:
    """At least once, as for a single message: its client may have it."""
    scene = Scene(Failing(0, 2, arrives=True))
    scene.add("a=")
    report = await scene.everybody(*messages(10))
    assert scene.got("a=") == ids(0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7, 8, 9)
    assert report.outcomes[0].delivered == [1] * 10


async def test_a_client_that_fails_in_the_middle_is_requeued_from_the_first_message_it_lacks() -> None:
    """With all messages of the frame that failed, and none of the one before; the retry takes frames too."""
    failing = Failing(500, 2, times=5)
    scene = Scene(failing)
    scene.add("sick=")
    report = await scene.everybody(*messages(10))
    ((client, error),) = report.outcomes[0].undelivered
    assert (client.skip, type(error)) == (IN_A_FRAME, ServerError)
    assert report.outcomes[0].delivered == [1] * 4 + [0] * 6
    scene.posts.clear()
    await scene.broadcast(Job(messages(10), (client._replace(frames=False),)))
    assert scene.posts["sick="] == [ids(4, 5, 6, 7), ids(8, 9)]
    assert scene.got("sick=") == ids(*range(10))


@pytest.mark.parametrize("reply", [Reply(500), Reply(0), Reply(403), Reply(200, NEVER, arrives=False)])
async def test_a_message_that_always_fails_costs_nobody_the_messages_before_it(reply: Reply) -> None:
    """The last try of a frame goes message by message, so its client stands where it would without frames."""
    scene = Scene(lambda name, post: reply if name == "a=" and b'"e6"' in post.body else OK)
    scene.add("a=", "well=")
    report = await scene.everybody(*messages(10))
    assert scene.got("a=") == ids(*range(6))
    ((client, _),) = report.outcomes[0].undelivered
    assert client.skip == 6
    frame = ids(4, 5, 6, 7)
    tries = 2 if reply.status == 200 else 4
    assert scene.posts["a="][1:] == [*[frame] * tries, ["e4"], ["e5"], *[["e6"]] * (tries + 1)]


async def test_a_line_too_slow_for_frames_gets_its_messages() -> None:
    """A frame never arrives in time and each of its messages does."""
    scene = Scene(lambda _id, post: Reply(200, NEVER, arrives=False) if len(messages_in(post)) > 1 else OK)
    scene.add("slow=")
    report = await scene.everybody(*messages(8))
    assert scene.got("slow=") == ids(*range(8))
    assert not report.outcomes[0].undelivered


async def test_without_a_retry_queue_too_a_frame_that_always_fails_is_taken_apart() -> None:
    """Where nobody is given up before the deadline, a batch that comes again must not fail at the same place."""
    scene = Scene(lambda _id, post: Reply(500) if b'"e6"' in post.body else OK)
    scene.add("a=")
    job = Job(messages(10), shard=Shard())
    report = await scene.broadcaster.broadcast((job,), 30.0, retry_until_deadline=True)
    assert scene.got("a=") == ids(*range(6))
    assert report.outcomes[0].undelivered[0].client.skip == 6


async def test_frames_that_nobody_shares_do_not_hold_the_loop_up() -> None:
    """With another half of the messages for each client, only so many frames are made in one turn of the loop."""
    found = tuple(Message.encode({"n": at, "tenant": f"t{at % 12}"}) for at in range(1_200))
    halves = [frozenset(f"t{at}" for at in range(12) if number >> at & 1) for number in range(1, 4_096, 41)]
    scene = Scene(admission=Admission(by_tenant=True), frame_bytes=FRAME_BYTES)
    for number, half in enumerate(halves):
        scene.add(f"c{number}=", tenants=half)
    turns, seen = [0], Counter[int]()

    def script(_id: str, post: Message) -> Reply:
        seen[turns[0]] += len(messages_in(post))
        return Reply(200, 1.0)

    scene.script = script
    sending = asyncio.create_task(scene.broadcaster.broadcast((Job(found, shard=Shard()),), 30.0))
    for _ in range(200):
        turns[0] += 1
        await asyncio.sleep(0)
    assert max(seen.values()) < 6_000 < sum(seen.values())
    await sending
    assert all(len(scene.got(f"c{number}=")) == 100 * len(half) for number, half in enumerate(halves))


async def test_a_client_that_is_gone_gets_no_frame_more() -> None:
    """And its row goes."""
    scene = Scene(Failing(410, 2))
    scene.add("left=")
    report = await scene.everybody(*messages(10))
    assert scene.posts["left="] == [ids(0, 1, 2, 3), ids(4, 5, 6, 7)]
    assert scene.got("left=") == ids(0, 1, 2, 3)
    assert report.outcomes[0].gone == 1
    assert scene.store.deleted == ["left="]


@pytest.mark.parametrize(("status", "error"), [(413, TooLarge), (400, Refused), (404, Refused)])
async def test_no_message_is_blamed_for_its_frame(status: int, error: type[Exception]) -> None:
    """A frame that is refused is tried message by message, and behind it come frames again."""
    scene = Scene(refusing(status, "e5", client="odd"))
    scene.add("odd=", "well=")
    report = await scene.everybody(*messages(14))
    alone = [[each] for each in ids(4, 5, 6, 7)]
    assert scene.posts["odd="] == [ids(0, 1, 2, 3), ids(4, 5, 6, 7), *alone, ids(8, 9, 10, 11), ids(12, 13)]
    assert scene.got("odd=") == [each for each in ids(*range(14)) if each != "e5"]
    ((key, (found, clients)),) = report.outcomes[0].rejected.items()
    assert (key[0], type(found), clients) == (5, error, [Client("odd=")])
    assert report.outcomes[0].delivered == [2] * 5 + [1] + [2] * 8
    assert not report.outcomes[0].undelivered


async def test_a_frame_that_is_refused_for_nothing_in_it_costs_nobody_a_message() -> None:
    """Some gateway's smaller bound, say: each message goes by itself, and no dead letter is written."""
    scene = Scene(lambda _id, post: Reply(413 if len(messages_in(post)) > 2 else 200))
    scene.add("a=")
    report = await scene.everybody(*messages(10))
    assert scene.got("a=") == ids(*range(10))
    assert not report.outcomes[0].rejected
    assert report.outcomes[0].delivered == [1] * 10


async def test_trouble_with_a_frame_is_forgotten_when_its_messages_go_alone() -> None:
    """The tries of the frame were none of theirs: each message has five of its own."""
    replies = [500, 500, 500, 413, 500, 500, 500, 500, 200]
    scene = Scene(lambda _id, _post: Reply(replies.pop(0) if replies else 200))
    scene.add("a=")
    report = await scene.everybody(*messages(4))
    assert scene.got("a=") == ids(0, 1, 2, 3)
    assert not report.outcomes[0].undelivered


@pytest.mark.parametrize("bound", [1, 20])
async def test_a_message_nobody_takes_is_left_out_of_frames(bound: int) -> None:
    """Ten clients find out that it is the message; all others get its neighbours in full frames."""
    scene = Scene(refusing(413, "e1"), bound=bound)
    scene.add(*(f"c{at}=" for at in range(200)))
    report = await scene.everybody(*messages(9))
    outcome = report.outcomes[0]
    assert outcome.blocked == {1: "too_large"}
    assert outcome.delivered == [200, 0, *[200] * 7]
    assert 10 <= outcome.rejections < 10 + bound
    without = [posts for posts in scene.posts.values() if posts == [ids(0, 2, 3, 4), ids(5, 6, 7, 8)]]
    assert len(without) >= 200 - 10 - bound
    assert all(scene.got(each) == ids(0, 2, 3, 4, 5, 6, 7, 8) for each in scene.posts)


async def test_a_lane_whose_messages_nobody_takes_is_done() -> None:
    """Nothing is left of its frame: it is no post, and not left over."""
    scene = Scene(refusing(413, *ids(0, 1, 2)), bound=1)
    scene.add(*(f"c{at}=" for at in range(30)))
    report = await scene.everybody(*messages(3))
    assert set(report.outcomes[0].blocked) == {0, 1, 2}
    assert not report.outcomes[0].undelivered
    assert len(scene.posts) == 10


async def test_a_frame_cut_at_the_deadline_may_have_arrived() -> None:
    """It counts as a try, and its client is left over from its first message on."""
    scene = Scene(Failing(200, 2, arrives=True))
    scene.add("a=")
    report = await scene.everybody(*messages(10), seconds=2.0)
    ((client, error),) = report.outcomes[0].undelivered
    assert (client.skip, type(error)) == (IN_A_FRAME, TimedOut)
    assert report.outcomes[0].delivered == [1] * 4 + [0] * 6


async def test_nobody_served_is_systemic_for_frames_too() -> None:
    """403 to ten clients' frames: nothing is left over or blamed, and all goes back."""
    scene = Scene(lambda _id, _post: Reply(403))
    scene.add(*(f"c{at}=" for at in range(40)))
    report = await scene.everybody(*messages(10))
    assert isinstance(report.systemic, Forbidden)
    assert report.outcomes[0].delivered == [0] * 10
    assert not report.outcomes[0].rejected


async def test_the_rate_is_one_of_posts() -> None:
    """Twenty posts a second are eighty messages a second."""
    scene = Scene(ceiling=20.0)
    scene.add(*(f"c{at}=" for at in range(20)))
    loop = asyncio.get_running_loop()
    start = loop.time()
    report = await scene.everybody(*messages(8))
    assert report.posts == 40
    assert loop.time() - start == pytest.approx(2.0, abs=0.1)
    assert report.outcomes[0].delivered == [20] * 8


async def test_clients_that_wait_hold_no_frames() -> None:
    """However different what each may have: when everybody is sick the memory must not fill with their frames."""
    gc.collect()  # what other tests left behind
    found = tuple(Message.encode({"tenant": f"t{at}", "x": "x" * 100}) for at in range(60))
    alive: list[int] = []

    def sick(_id: str, _post: Message) -> Reply:
        if len(scene.posts) == 3_000 and not alive:
            alive.append(sum(isinstance(each, Frame) for each in gc.get_objects()))
        return Reply(503)

    scene = Scene(sick, admission=Admission(by_tenant=True), bound=10)
    random = Random(3)
    scene.add(*(f"c{at}=" for at in range(3_000)))
    for each in scene.store.rows:
        some = frozenset(f"t{at}" for at in random.sample(range(60), 20))
        scene.store.rows[each] = {"frames": "array", "tenants": some}
    await scene.everybody(*found)
    (held,) = alive
    assert len({bodies[0] for bodies in scene.bodies.values()}) > 2_500
    assert held <= 2_048 + 10


# ── across queues ───────────────────────────────────────────────────────────────────────────────


async def test_a_retry_job_holds_each_message_by_itself() -> None:
    """As an operator reads it and an older version wrote it; served again, it goes out in frames."""
    scene = Scene(Failing(500, 2, times=5))
    scene.add("sick=")
    report = await scene.everybody(*messages(10))
    assert report.outcomes[0].undelivered
    job = Job(messages(10)[4:], (Client("sick="),), attempt=1, first_at=1)
    scene.posts.clear()
    records = [{"messageId": "1", "body": job.encode()}]
    assert await scene.relay.on_jobs({"Records": records}, 30) == {"batchItemFailures": []}
    assert scene.posts["sick="] == [ids(4, 5, 6, 7), ids(8, 9)]


async def test_a_dead_letter_is_about_one_message() -> None:
    """However it was posted at first."""
    scene = Scene(refusing(413, "e2"))
    scene.add("a=")
    job = Job(messages(6), (Client("a="),))
    records = [{"messageId": "1", "body": job.encode()}]
    assert await scene.relay.on_jobs({"Records": records}, 30) == {"batchItemFailures": []}
    (letter,) = scene.letters.take()
    dead = Job.decode(letter.body)
    assert [each.event_id for each in dead.messages] == ["e2"]
    assert scene.got("a=") == ids(0, 1, 3, 4, 5)
