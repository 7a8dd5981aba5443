"""How many posts a second: a token bucket whose rate falls when many clients are refused at once. Pure.

API Gateway answers 429 for two reasons: the account's rate is used up, or one client's buffer is
full ("PostToConnection", LimitExceededException). The answer does not say which; the crowd does.

Rules
- Several clients refused for the first time, and a good share of all posts: the account's limit. The
  rate falls to a part of what was let through, once a round, and those refusals count no attempt.
- Otherwise the client's buffer is full: only it waits.
- Without refusals the rate creeps up by its square root: a large share grows more slowly for its
  size than a small one, so relays that share an account drift to equal shares (binomial congestion
  control, Bansal and Balakrishnan 2001).
- ``ceiling`` holds always. Until the first cut, and without a ceiling, nothing is counted a post.

Times are seconds of a monotonic clock. The state outlives an invocation, as the limit does.
"""

from __future__ import annotations

from math import sqrt

ROUND = 0.1
_CUT = 0.8
_CREEP = 0.5
_FORGET = 30.0
_BURST = 0.02
_LEAST = 1.0
_CROWD = 4
_SHARE = 0.15
_SHARE_LIMITED = 0.03


class Rate:
    """The rate of posts this process allows itself."""

    def __init__(self, ceiling: float | None = None) -> None:
        self.ceiling = ceiling
        self.limit = ceiling
        self._tokens = 1.0
        self._filled_at = 0.0
        self._round_at = float("-inf")
        self._sent = 0
        self._refused = 0
        self._clients: set[str] = set()
        self._cut_at = float("-inf")

    def __repr__(self) -> str:
        """A sentence for logs."""
        return "as fast as it goes" if self.limit is None else f"at most {self.limit:,.0f} posts a second"

    def begin(self, now: float) -> None:
        """A new invocation: what was learnt long ago no longer holds, and no time was saved up."""
        if now - self._cut_at > _FORGET:
            self.limit = self.ceiling
        self._filled_at = now
        self._start_round(now, 0)

    def wait(self, now: float) -> float:
        """0 and a place taken, or how long until there is one. Ask only while ``limit`` is set."""
        assert self.limit is not None
        room = max(1.0, self.limit * _BURST)
        self._tokens = min(room, self._tokens + (now - self._filled_at) * self.limit)
        self._filled_at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self.limit

    def tick(self, now: float, answered: int) -> None:
        """Once in a while: ``answered`` counts every answer of this invocation so far."""
        if now - self._round_at < ROUND:
            return
        if self.limit is not None and now - self._cut_at > 2 * ROUND and len(self._clients) < 2:
            grown = self.limit + _CREEP * sqrt(self.limit) * min(10.0, (now - self._round_at) / ROUND)
            self.limit = grown if self.ceiling is None else min(self.ceiling, grown)
        self._start_round(now, answered)

    def refused(self, connection_id: str, now: float, answered: int, *, first: bool) -> bool:
        """A 429: True where it is the account's doing. ``first``: the client was not refused just before."""
        if first:
            self._clients.add(connection_id)
        self._refused += 1
        if now - self._cut_at < ROUND:
            return True
        answers = max(1, answered - self._sent)
        share = _SHARE if self.limit is None or self.limit == self.ceiling else _SHARE_LIMITED
        if len(self._clients) < _CROWD or len(self._clients) < share * answers:
            return False
        accepted = max(0, answers - self._refused) / max(0.01, now - self._round_at)
        self._cut(accepted, now)
        self._start_round(now, answered)
        return True

    def _cut(self, accepted: float, now: float) -> None:
        known = accepted if self.limit is None else min(self.limit, max(accepted, self.limit / 2))
        self.limit = max(_LEAST, _CUT * known)
        self._tokens = 0.0
        self._filled_at = now
        self._cut_at = now

    def _start_round(self, now: float, answered: int) -> None:
        self._round_at = now
        self._sent = answered
        self._refused = 0
        self._clients.clear()
