"""Posts every message to every client: a bounded number at once, in order per client, none waiting for the slowest.

Each client has a lane, and a lane is always in exactly one place:

    page of the table ──► ready ──► in flight ──► done, gone, closed or undelivered
          │                 ▲ ▲         │
          └──► looked up ───┘ └ waiting ◄┤
                                  ▲     │
                                  └─ undecided

Order, backoff without a place in the bound, and the deadline all follow from that: a lane is in
flight once at most; a waiting lane is a timer and nothing else; stopping makes every lane that is
ready, waiting or undecided an undelivered one.

Rules
- A lane that was answered goes on before one that has not begun, so clients finish early; one that
  was refused twice in a row goes behind.
- Pages are read while posts are under way, and not far ahead, so memory never holds all clients.
- The report names each client that lacks messages, the first one it lacks, and why.
- The rows of named clients, and of those whose time seems to be over, are looked up first (``admission``). A
  connection whose time is over gets a DELETE, which counts in the bound and is tried once: it is never served, and
  never left over. Messages go first: while any are under way DELETEs have a quarter of the bound, and only where
  no lane is ready; afterwards all of it, for a short time.
- A read that fails ends the reading of its own job, and nothing else.
- Rows of gone clients are deleted while the posting goes on, as far as the evidence suffices
  (``evidence``).
- No task, timer or post outlives a broadcast, whatever ends it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

from ..errors import PostError, StoreUnavailable, Throttled, TimedOut, Unavailable, Unreachable
from ..wire.frames import FRAME_BYTES, FrameCache, Frames
from ..wire.jobs import Client, Job, Shard
from .admission import Admission, Entry, has_expired
from .deletions import Deletions
from .evidence import Evidence
from .lanes import Lane
from .protocols import ConnectionStore, Transport
from .rate import ROUND, Rate
from .report import Outcome, Report, Undelivered
from .retry_policy import RetryPolicy, Step

# Clients still ready when the next page is asked for: at 10,000 posts per second they last for 100 ms, and a page takes
# less.
_READ_AHEAD = 1_000
# Rows looked up at a time: four calls of BatchGetItem side by side.
_LOOKED_UP = 400
# One of so many places, while messages are under way: DELETEs may all hang, and nobody waits for them.
_PLACES_FOR_CLOSINGS = 4
# Seconds for connections still to be closed when everybody has been served; the next broadcast finds the rest.
_LAST_CLOSINGS = 3.0
# Messages put into frames in one turn of the loop, at some 2 us each. Where every client gets others, as many frames as
# there are posts in flight would be made in one go, and answers and deadlines wait for seconds.
_HANDLED_IN_A_TURN = 5_000
# Seconds of CPU to settle and encode each undelivered or rejected client: twice what was measured, 12 to 18 us for each
# of 200,000 in 52 bodies on a busy core.
_SETTLING = 0.00003


_EVERYBODY = Admission()


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a broadcast: posts in flight, seconds for one post from connect to last byte, bytes of a frame."""

    max_concurrency: int
    post_timeout: float = 3.0
    frame_bytes: int = FRAME_BYTES


class Broadcaster:
    """Serves jobs over one transport and one connection store; its rate and its evidence outlive a broadcast."""

    def __init__(
        self,
        transport: Transport,
        store: ConnectionStore,
        limits: Limits,
        rate: Rate,
        random: Random,
        wall_clock: Callable[[], float],
        admission: Admission = _EVERYBODY,
    ) -> None:
        self.admission = admission
        self.transport = transport
        self.store = store
        self.limits = limits
        self.rate = rate
        self.random = random
        self.wall_clock = wall_clock
        self.evidence = Evidence(wall_clock)

    async def broadcast(self, jobs: Sequence[Job], seconds: float, *, retry_until_deadline: bool = False) -> Report:
        """Serve all jobs at once, within ``seconds``; a failed post or read is in the report, never raised.

        ``retry_until_deadline``: there is no retry queue, so no client is given up before the time is over.
        """
        rules, cache, frame_bytes = self.admission, FrameCache(), self.limits.frame_bytes
        outcomes = tuple(
            Outcome(
                job,
                [0] * len(job.messages),
                by_tenant=rules.by_tenant,
                for_all=rules.for_all,
                frames=Frames(job.messages, frame_bytes, cache),
            )
            for job in jobs
        )
        policy = RetryPolicy(self.rate, self.random, self.wall_clock, retry_until_deadline=retry_until_deadline)
        return await _Broadcast(self, outcomes, cache, policy, seconds).run()


class _Broadcast:
    """One broadcast under way."""

    def __init__(
        self,
        owner: Broadcaster,
        outcomes: tuple[Outcome, ...],
        cache: FrameCache,
        policy: RetryPolicy,
        seconds: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = owner.transport
        self._store = owner.store
        self._limits = owner.limits
        self._bound = owner.limits.max_concurrency
        self._rate = owner.rate
        self._policy = policy
        self._admission = owner.admission
        self._wall_clock = owner.wall_clock
        self._outcomes = outcomes
        self._end = self._loop.time() + seconds
        self._last_call = self._end - min(owner.limits.post_timeout, seconds / 4)
        self._ready: deque[Lane] = deque()
        self._in_flight: set[Lane] = set()
        self._waiting: dict[Lane, asyncio.TimerHandle] = {}
        self._undecided: list[Lane] = []
        self._sought: deque[tuple[Outcome, Client]] = deque()
        self._seeking = False
        self._closings: deque[Lane] = deque()
        self._closed: set[str] = set()
        self._deletes = 0
        self._most_deletes = max(1, owner.limits.max_concurrency // _PLACES_FOR_CLOSINGS)
        self._last_closings: asyncio.TimerHandle | None = None
        self._deletions = Deletions(owner.store)
        self._evidence = owner.evidence
        self._unproven: list[str] = []
        self._readers: set[asyncio.Task[None]] = set()
        self._timers: list[asyncio.TimerHandle] = []
        self._pause: asyncio.TimerHandle | None = None
        self._cache = cache
        self._breath: asyncio.Handle | None = None
        self._room = asyncio.Event()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._stopping = False
        self._blocked = False
        self._maybe_systemic: PostError | None = None
        self._systemic: PostError | Unavailable | None = None
        self._posts = 0
        self._most = 0
        self._served = 0
        self._served_at: int | None = None

    async def run(self) -> Report:
        try:
            async with asyncio.timeout_at(self._end):
                await self._transport.begin()
            self._start()
            await self._done
            self._prove()
            self._note_served()
            await self._deletions.finish(self._end - self._loop.time())
        except (Unavailable, TimeoutError) as error:
            self._systemic = (
                error if isinstance(error, Unavailable) else Unavailable("the transport was not ready in time")
            )
            self._give_up_all()
        finally:
            await self._release()
        return self._report()

    def _start(self) -> None:
        self._rate.begin(self._loop.time())
        self._timers += [
            self._loop.call_at(self._last_call, self._stop),
            self._loop.call_at(self._end, self._cut),
            self._loop.call_later(ROUND, self._tick),
        ]
        for outcome in self._outcomes:
            if outcome.job.shard is None:
                self._seek(outcome, outcome.job.clients)
            else:
                # Not in the task: it may be cancelled before its first step.
                outcome.unread, outcome.cursor = True, outcome.job.cursor
                self._spawn(self._read(outcome, outcome.job.shard))
        self._pump()

    def _spawn(self, reading: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(reading)
        self._readers.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._readers.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._done.done():
            self._done.set_exception(error)
        self._finish_if_idle()

    async def _read(self, outcome: Outcome, shard: Shard) -> None:
        while outcome.unread:
            try:
                page = await self._store.read(shard, outcome.cursor)
            except StoreUnavailable as error:
                outcome.failure = error
                return
            outcome.pages += 1
            outcome.unread, outcome.cursor = page.cursor is not None, page.cursor
            self._admit(outcome, page.clients)
            self._pump()
            while len(self._ready) > _READ_AHEAD:
                self._room.clear()
                await self._room.wait()

    def _admit(self, outcome: Outcome, clients: Sequence[Client]) -> None:
        """Make lanes for the clients of a page, and look those up whose time seems to be over."""
        now = self._wall_clock()
        overdue = [each for each in clients if each.expires_at is not None and has_expired(each.expires_at, now)]
        if overdue:
            clients = [each for each in clients if not has_expired(each.expires_at, now)]
            self._seek(outcome, overdue)
        lanes = [Lane(client, outcome) for client in clients]
        self._ready.extend([lane for lane in lanes if lane.position < len(lane.messages)])

    def _seek(self, outcome: Outcome, clients: Iterable[Client]) -> None:
        """Have the rows of these clients looked up."""
        self._sought.extend((outcome, client) for client in clients)
        if not self._seeking:
            self._seeking = True
            self._spawn(self._look_up())

    async def _look_up(self) -> None:
        while self._sought:
            some = tuple(islice(self._sought, _LOOKED_UP))
            try:
                rows = await self._store.look_up(list(dict.fromkeys(client.connection_id for _, client in some)))
            except StoreUnavailable as error:
                self._not_found(error)
                break
            for _ in some:
                self._sought.popleft()
            for outcome in {id(outcome): outcome for outcome, _ in some}.values():
                outcome.pages += 1
            self._let_in(some, rows)
            self._pump()
        self._seeking = False

    def _let_in(self, some: Iterable[tuple[Outcome, Client]], rows: Mapping[str, Client]) -> None:
        now = self._wall_clock()
        for outcome, asked in some:
            entry, client = self._admission.decide(asked, rows, now)
            lane = Lane(client, outcome)
            if entry is Entry.SERVE and not lane.done:
                self._ready.append(lane)
            elif entry is Entry.CLOSE and client.connection_id not in self._closed:
                self._closed.add(client.connection_id)
                lane.closing = True
                self._closings.append(lane)

    def _not_found(self, error: StoreUnavailable) -> None:
        """Give up whom the table did not answer for."""
        for outcome, _ in self._sought:
            outcome.failure = error
        self._give_up_sought()

    def _pump(self) -> None:
        """Post while a lane is ready, the bound has a place and the rate allows it."""
        ready, in_flight = self._ready, self._in_flight
        while ready and len(in_flight) < self._bound and not self._stopping and self._maybe_systemic is None:
            if (self._rate.limit is not None or self._cache.handled > _HANDLED_IN_A_TURN) and self._paused():
                break
            lane = ready.popleft()
            if lane.expires_at is not None and has_expired(lane.expires_at, self._wall_clock()):
                self._seek(lane.outcome, [lane.client])
                continue
            if self._blocked and lane.skip_blocked():
                continue
            in_flight.add(lane)
            self._posts += 1
            frames = lane.frames
            message = lane.messages[lane.position] if frames is None else lane.next_post(frames)
            self._transport.send(lane, message, self._answered)
        if self._closings:
            self._close()
        self._most = max(self._most, len(in_flight))
        if len(ready) <= _READ_AHEAD:
            self._room.set()
        if len(in_flight) == self._deletes:
            self._finish_if_idle()

    def _breathe(self) -> None:
        """Go on making frames, once the loop has looked at its sockets and timers."""
        self._breath, self._cache.handled = None, 0
        self._pump()

    def _paused(self) -> bool:
        if self._cache.handled > _HANDLED_IN_A_TURN:
            self._breath = self._breath or self._loop.call_soon(self._breathe)
        if self._pause is not None or self._breath is not None:
            return True
        wait = self._rate.wait(self._loop.time())
        if wait:
            self._pause = self._loop.call_later(wait, self._resume)
        return wait > 0

    def _resume(self) -> None:
        self._pause = None
        self._pump()

    def _close(self) -> None:
        """Close connections while no lane is ready, and DELETEs have a place in the bound and in the rate."""
        places = self._most_deletes if self._serving else self._bound
        while self._closings and not (self._ready or self._stopping or self._maybe_systemic):
            if len(self._in_flight) >= self._bound or self._deletes >= places:
                break
            if self._rate.limit is not None and self._paused():
                break
            lane = self._closings.popleft()
            self._in_flight.add(lane)
            self._deletes += 1
            self._transport.disconnect(lane, self._disconnected)

    def _disconnected(self, lane: Lane, error: PostError | None) -> None:
        self._in_flight.discard(lane)
        self._deletes -= 1
        if not self._policy.is_closed(lane, error):
            lane.outcome.unclosed += 1
            lane.outcome.closing_error = error
        else:
            lane.outcome.expired += 1
            self._delete(lane, closed=error is None)
        if self._maybe_systemic is not None:
            self._abort_unless_served()
        self._pump()

    def _answered(self, lane: Lane, error: PostError | None) -> None:
        self._in_flight.discard(lane)
        if error is None:
            self._delivered(lane)
        else:
            step, wait = self._policy.decide(lane, error, self._loop.time())
            self._apply(step, lane, wait)
        if self._maybe_systemic is not None:
            self._abort_unless_served()
        self._pump()

    def _abort_unless_served(self) -> None:
        """Abort once the last post in flight has failed too; go on if one of them is answered 200."""
        assert self._maybe_systemic is not None
        reached = isinstance(self._maybe_systemic, Unreachable) and self._policy.reached
        if self._policy.served or reached:
            self._maybe_systemic = None
        elif not self._in_flight:
            error, self._maybe_systemic = self._maybe_systemic, None
            self._abort(error)

    def _delivered(self, lane: Lane) -> None:
        self._policy.served += 1
        if lane.frame is None:
            lane.outcome.delivered[lane.position] += 1
        else:
            lane.count_frame(lane.frame)
        self._advance(lane)
        if self._undecided:
            undecided, self._undecided = self._undecided, []
            for each in undecided:
                step, wait = self._policy.clear(each)
                self._apply(step, each, wait)

    def _advance(self, lane: Lane) -> None:
        lane.position += 1
        if lane.wanted is not None:
            lane.skip_unwanted()
        if lane.troubled:
            self._policy.recovered(lane)
        if lane.position < len(lane.messages):
            self._again(lane)

    def _apply(self, step: Step, lane: Lane, wait: float) -> None:
        """Move a lane whose post was not delivered to where its step says."""
        frame, lane.frame = lane.frame, None  # a lane that waits holds no bytes
        match step:
            case Step.WAIT if not self._stopping:
                if frame is not None and self._policy.is_last_try(lane):
                    lane.apart = frame.end
                self._waiting[lane] = self._loop.call_later(wait, self._wake, lane)
            case Step.UNDECIDED if not self._stopping:
                self._undecided.append(lane)
            case Step.ABORT if not self._stopping:
                lane.tries += 1
                self._undecided.append(lane)
                self._maybe_systemic = lane.error
            case Step.REJECT if frame is not None:
                lane.apart = frame.end
                self._policy.recovered(lane)
                self._again(lane)
            case Step.REJECT:
                self._blocked |= lane.reject()
                self._advance(lane)
            case Step.FORGET:
                self._forget(lane)
            case _:  # GIVE_UP, or a lane that would wait while the broadcast stops
                self._give_up(lane)

    def _again(self, lane: Lane) -> None:
        if self._stopping:
            self._give_up(lane)
        else:
            self._ready.appendleft(lane)

    def _wake(self, lane: Lane) -> None:
        del self._waiting[lane]
        # In front, a few full buffers would use up a low limit's places and nobody else would have a turn.
        if lane.refusals > 1:
            self._ready.append(lane)
        else:
            self._ready.appendleft(lane)
        self._pump()

    def _forget(self, lane: Lane) -> None:
        lane.outcome.gone += 1
        self._delete(lane, closed=False)

    def _delete(self, lane: Lane, *, closed: bool) -> None:
        """Delete the row of a client that is gone, or hold it until the endpoint is known to be the right one."""
        self._prove()
        if closed or self._evidence.suffices(lane.connection_id, lane.created_at):
            self._deletions.add(lane.connection_id)
        else:
            self._unproven.append(lane.connection_id)

    def _prove(self) -> None:
        """Delete the rows held back until a first 200. Called now and then, to keep the check out of each answer."""
        if self._policy.served:
            self._evidence.proven = True
            for connection_id in self._unproven:
                self._deletions.add(connection_id)
            self._unproven.clear()

    def _give_up(self, lane: Lane) -> None:
        if lane.closing:
            lane.outcome.unclosed += 1
            return
        # Without one 200 to compare with, clients whose buffers stay full would be requeued for ever as never tried.
        if self._policy.refused_all and isinstance(lane.error, Throttled):
            lane.tries = max(lane.tries, 1)
        lane.outcome.undelivered.append(lane.undelivered())

    def _abort(self, error: PostError) -> None:
        """Stop because nobody can be served; wait for the posts in flight, but not for the deadline."""
        if self._systemic is None:
            self._systemic = error
            self._timers.append(self._loop.call_later(self._limits.post_timeout, self._cut))
            self._stop()

    def _stop(self) -> None:
        """Start no post and no read any more, and give up every lane that is not in flight."""
        self._stopping = True
        for reader in self._readers:
            reader.cancel()
        self._give_up_all()
        self._finish_if_idle()

    def _give_up_all(self) -> None:
        for timer in self._waiting.values():
            timer.cancel()
        lanes = [*self._ready, *self._waiting, *self._undecided, *self._closings]
        self._ready.clear()
        self._closings.clear()
        self._waiting.clear()
        self._undecided.clear()
        for lane in lanes:
            self._give_up(lane)
        self._give_up_sought()

    def _give_up_sought(self) -> None:
        for outcome, client in self._sought:
            outcome.undelivered.append(Undelivered(client, None))
        self._sought.clear()

    def _cut(self) -> None:
        """Cut the posts in flight, since the time is over. Each may have arrived, so it counts as a try."""
        self._stopping = True
        self._transport.stop()
        for lane in self._in_flight:
            lane.error = TimedOut("cut at the deadline")
            lane.tries += 1
        lanes = tuple(self._in_flight)
        self._in_flight.clear()
        self._deletes = 0
        for lane in lanes:
            self._give_up(lane)
        self._stop()

    def _tick(self) -> None:
        now = self._loop.time()
        self._prove()
        self._note_served()
        self._rate.tick(now, self._policy.served + self._policy.failed)
        settling = _SETTLING * self._unfinished()
        if now > self._end - settling:
            self._cut()
        elif now > self._last_call - settling and not self._stopping:
            self._stop()
        self._timers[2] = self._loop.call_later(ROUND, self._tick)

    def _note_served(self) -> None:
        """Note when somebody was served last. Called now and then, to keep the clock out of each answer."""
        if self._policy.served > self._served:
            self._served, self._served_at = self._policy.served, int(self._wall_clock() * 1000)

    def _unfinished(self) -> int:
        """How many clients the settlement would have to name if the time were over."""
        left = sum(len(outcome.undelivered) + outcome.rejections for outcome in self._outcomes)
        places = (self._ready, self._in_flight, self._waiting, self._undecided, self._sought)
        return left + sum(len(place) for place in places)

    def _finish_if_idle(self) -> None:
        """Finish when nothing is ready, in flight, waiting or being read: then nothing can clear the undecided."""
        if self._serving or self._done.done():
            return
        if self._closings and self._last_closings is None:
            self._last_closings = self._loop.call_later(_LAST_CLOSINGS, self._stop)
            self._timers.append(self._last_closings)
            self._close()
        if not (self._closings or self._deletes):
            self._give_up_all()
            self._done.set_result(None)

    @property
    def _serving(self) -> bool:
        """Whether a message is on its way to anybody, or a row that may want one."""
        return bool(self._ready or self._waiting or self._readers) or len(self._in_flight) > self._deletes

    async def _release(self) -> None:
        # Answers still come in while the readers end: they must start nothing new.
        self._stopping = True
        for timer in (*self._timers, *self._waiting.values(), self._pause, self._breath):
            if timer is not None:
                timer.cancel()
        readers = tuple(self._readers)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        await self._deletions.cancel()
        await self._transport.end()

    def _unreadable(self) -> StoreUnavailable | None:
        """The failure that kept every job from its first page, if there was no other work."""
        failures = [outcome.failure for outcome in self._outcomes if not outcome.pages]
        return failures[0] if failures and len(failures) == len(self._outcomes) and all(failures) else None

    def _report(self) -> Report:
        return Report(
            self._outcomes,
            self._systemic or self._policy.systemic(self._outcomes) or self._unreadable(),
            posts=self._posts,
            throttled=self._policy.throttled,
            account_throttled=self._policy.account_throttled,
            most_in_flight=self._most,
            undeleted=self._deletions.undeleted,
            unproven=len(self._unproven),
            rate_limit=self._rate.limit,
            served_at=self._served_at,
        )
