"""How many posts a second: a token bucket whose rate falls when many clients are refused at once. Pure.

API Gateway answers 429 for two reasons: the account's rate is used up, or one client's buffer is
full (PostToConnection, "LimitExceededException"). The answer does not say which; the crowd does.

Rules
- A crowd of clients refused, and a good share of all answers: the account's limit. The rate falls to
  a part of what was let through, once a round, and such refusals count no try.
- Fewer: those clients' buffers are full, and only they wait. For a second at most their refusals say
  nothing about the account any more.
- Cut after cut that makes refusals no rarer was wrong: the account's refusals follow the rate, full
  buffers do not. It is taken back, and so many refusals are expected for a while.
- Without a crowd the rate creeps up by its square root: a large share grows more slowly for its
  size than a small one, so relays on one account drift to equal shares (Bansal and Balakrishnan,
  "Binomial Congestion Control Algorithms", 2001).
- ``ceiling`` holds always. Without it and before the first cut nothing is counted a post.

Times are seconds of a monotonic clock. The state outlives an invocation, as the limit does.
"""

from __future__ import annotations

from math import inf, sqrt

ROUND = 0.1
_CUT = 0.8
_CREEP = 0.5
_FORGET = 30.0
_BURST = 0.02
_LEAST = 1.0
_TURN = 0.001
_CROWD = 4
_SHARE = 0.15
_SHARE_WHEN_LIMITED = 0.05
_REMEMBER = 1.0
_VAIN_CUTS = 4
_STILL = 0.7
_MINORITY = 0.5
_UNLEARN = 0.98


class Rate:
    """The rate of posts this process allows itself."""

    def __init__(self, ceiling: float | None = None) -> None:
        self.ceiling = ceiling
        self.limit = ceiling
        self._tokens = 1.0
        self._filled_at = 0.0
        self._cut_at = -inf
        self._full: set[str] = set()
        self._full_since = -inf
        self._expected = 0.0
        self._cuts = 0
        self._before: tuple[float | None, float] = (ceiling, 1.0)
        self._start_round(-inf, 0)

    def __repr__(self) -> str:
        """A sentence for logs."""
        return "as fast as it goes" if self.limit is None else f"at most {self.limit:,.0f} posts a second"

    def begin(self, now: float) -> None:
        """A new invocation: what was learnt long ago no longer holds, and no time was saved up."""
        if now - self._cut_at > _FORGET:
            self.limit, self._expected = self.ceiling, 0.0
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
        return max(_TURN, (1.0 - self._tokens) / self.limit)

    def tick(self, now: float, answers: int) -> None:
        """Ends a round once it is long enough; ``answers`` counts all of this invocation so far."""
        if now - self._round_at < ROUND * 0.9:
            return
        if (
            self.limit is not None
            and now - self._cut_at > 2 * ROUND
            and not self._crowded(answers, _SHARE_WHEN_LIMITED)
        ):
            self._creep(now)
        self._expected *= _UNLEARN
        if now - self._full_since > _REMEMBER:
            self._full.clear()
            self._full_since = now
        self._start_round(now, answers)

    def refused(self, connection_id: str, now: float, answers: int) -> bool:
        """A 429: True where it is the account's doing; ``answers`` counts this one too."""
        self._refused += 1
        if connection_id not in self._full:
            self._clients.add(connection_id)
        if now - self._cut_at < ROUND:
            return True
        if not self._crowded(answers, _SHARE if self.limit == self.ceiling else _SHARE_WHEN_LIMITED):
            self._full.add(connection_id)
            return False
        self._full -= self._clients
        self._cut(now, max(1, answers - self._answers))
        self._start_round(now, answers)
        return True

    def _crowded(self, answers: int, share: float) -> bool:
        return len(self._clients) > _CROWD + (share + 2 * self._expected) * (answers - self._answers)

    def _cut(self, now: float, answers: int) -> None:
        share = len(self._clients) / answers
        if now - self._cut_at > 3 * ROUND:
            self._cuts, self._before = 0, (self.limit, share)
        self._cuts += 1
        limit_before, share_before = self._before
        if self._cuts > _VAIN_CUTS and _STILL * share_before <= share < _MINORITY:
            self.limit, self._expected = limit_before, share
            return
        accepted = max(0, answers - self._refused) / max(0.01, now - self._round_at)
        known = accepted if self.limit is None else min(self.limit, max(accepted, self.limit / 2))
        self.limit = self._under_ceiling(max(_LEAST, _CUT * known))
        self._tokens, self._filled_at, self._cut_at = 0.0, now, now

    def _creep(self, now: float) -> None:
        assert self.limit is not None
        grown = self.limit + _CREEP * sqrt(self.limit) * min(5.0, (now - self._round_at) / ROUND)
        self.limit = self._under_ceiling(grown)

    def _under_ceiling(self, limit: float) -> float:
        return limit if self.ceiling is None else min(self.ceiling, limit)

    def _start_round(self, now: float, answers: int) -> None:
        self._round_at = now
        self._answers = answers
        self._refused = 0
        self._clients: set[str] = set()
