"""How many posts per second: a token bucket that finds the account's limit from how clients fare. Pure.

API Gateway answers 429 for two reasons and does not say which: the account's rate is used up, or
one client's buffer is full (PostToConnection, "LimitExceededException"). The account refuses
without looking at who is asked; a buffer that was full a moment ago is likely to be full still.

Rules
- Tries are sorted into two groups: "again" are those of clients that were refused lately (at this
  message or the one before), "first" are all others. Under the account's limit both groups fare
  alike. Where buffers are full, "again" is refused far more often. The ratio of the two shares of
  refusals says how far refusals are the account's.
- After three refusals in a row a client's tries are no evidence: they tell how that client is.
  Where hardly any first tries are made, as at a batch's end, the ratio stays what it was.
- A round is a tenth of a second with at least one answer. Its share is the number of refusals that
  the ratio puts down to the account, divided by all answers of the round.
- Unlimited: a share of more than 15 % sets the limit to what was let through.
- Limited: each round the limit grows by a step and shrinks by the share, so it settles where the
  two are equal, with few refusals. The step is relatively smaller for a large limit, so relays on
  one account drift to equal shares (Bansal and Balakrishnan, "Binomial Congestion Control
  Algorithms", 2001).
- The longer nobody is refused for the account, the larger the step: a wrong cut or a lifted limit
  is made good in a second or two. A limit that holds nobody back does not grow, and no round
  shrinks a limit below what was let through in it.
- A refusal counts as the client's failed try only where so many in a row are unlikely to come
  from the account.
- ``ceiling`` holds always.

The first tries that succeed are not counted here: the broadcast counts its answers anyway, and
hands in their number. So an unlimited process does nothing here for a post that is let through.

Times are seconds of a monotonic clock, limits posts per second. The state outlives an invocation, as
the account's limit does, and is forgotten after 30 s without the account's refusals.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt

# Long enough for a hundred answers or more at full speed, short enough to react ten times per second.
ROUND = 0.1
# The timer that ends a round may come this much early, and the round must end all the same.
_PLAY = 0.01
# 20 ms of the limit may be saved up: a loop that is late by a few milliseconds would else lose those posts.
_BURST = 0.02
# An event loop's timers are no finer than this; a shorter wait would spin.
_TURN = 0.001
# The lowest limit: a process that posts more seldom takes too long to notice that there is room again.
_LEAST = 1.0
# Half a minute later others use the account more or less than then, and the old limit would only be in the way.
_FORGET = 30.0
# Up to four full buffers are refused together by chance, also where hardly anybody else is being answered.
_FEW = 4
# The first cut is made on little evidence. Below this share, a wrong cut would cost more than the refusals do.
_FIRST_SHARE = 0.15
# So many refused and hardly anybody let through does not wait for the round's end. Full buffers do not come in such
# a row, since a table is read in the order of its keys' hashes.
_FLOOD = 64
_FLOOD_SHARE = 0.75
# So many tries of the group "again" are remembered: enough to tell 5 % from 50 %, and at most a few seconds old.
_MEMORY = 16.0
# So many answers of any kind say how likely the account refuses now: a round at 300 posts per second.
_SHARE_MEMORY = 32.0
# A client's tries after more refusals in a row than this say what is the matter with that client.
_TRIES_THAT_TELL = 2
# Where there are fewer, a round's weight is halved every eleven rounds: what is older than seconds is no evidence.
_FADE = 15 / 16
# Two imagined first tries that were let through: one refused client must not look like a share of 100 %.
_FIRST_PRIOR = 2.0
# Imagined tries of the group "again": a limit once found needs some evidence to doubt it; a first cut needs it to cut.
_LIMITED_PRIOR = 4.0
_UNLIMITED_PRIOR = 1.0
# The largest step, which the root below reaches at 25 per second. A round of one answer takes half of it, else one post
# in four would be refused at 1 per second. With half of it that is one in seven.
_STEP = 0.1
_SMALLEST_PART = 0.5
# The step is this over the limit's root: 2.5 % at 400 per second, which is one refusal a round.
_CREEP = 0.5
# So many refusals that should have come and did not, before the step grows: by chance that happens one time in five.
_CALM = 1.5
# The most a round may add: the refusals of a limit that is too high come a latency late, when it has grown again.
_LEAP = 0.3
# A round of fewer answers is read as if it had four: one refusal of one answer is no share of 100 %.
_ENOUGH = 4
# One round leaves so much of a known limit at least: of relays that are refused together, one is at times refused all
# by chance, and a share that falls to nearly nothing takes long to be a fair one again.
_DEEPEST = 0.4
# First tries beside those of the group "again": with fewer than one to four, the two cannot be compared.
_BESIDE = 4
# Where they cannot, a limit moves only if refusals have mostly been the account's before.
_SURE = 0.5
# Half a refusal may be rounding, a whole one is not; a quarter is a sign that the account's limit is still near.
_REFUSAL = 0.5
_SIGN = 0.25
# Refusals in a row that are less likely than this are put down to the client.
_UNLIKELY = 0.05
# However many others are refused: a client refused eleven times in a row (0.75 ** 11 = 4 %) has had its chances.
_MOST = 0.75


@dataclass(slots=True)
class _Tries:
    """Tries, and how many of them were refused: of clients refused lately (``again``), and of others."""

    first: float = 0.0
    first_refused: float = 0.0
    again: float = 0.0
    again_refused: float = 0.0

    @property
    def all(self) -> float:
        return self.first + self.again

    @property
    def compared(self) -> bool:
        """Whether there are enough others beside those refused lately to say anything about either."""
        return self.first > 0 and _BESIDE * self.first >= self.again

    @property
    def let_through(self) -> float:
        return self.all - self.first_refused - self.again_refused

    def plus(self, other: _Tries) -> _Tries:
        return _Tries(
            self.first + other.first,
            self.first_refused + other.first_refused,
            self.again + other.again,
            self.again_refused + other.again_refused,
        )

    def times(self, part: float) -> _Tries:
        return _Tries(self.first * part, self.first_refused * part, self.again * part, self.again_refused * part)

    def ratio(self, *, limited: bool) -> float:
        """Which part of the first tries' refusals is the account's, from 0 to 1.

        The fewer the tries, the more it leans to what is likely: where a limit is known, to the account;
        else, to full buffers.
        """
        first = self.first_refused / (self.first + _FIRST_PRIOR)
        likely, weight = (first, _LIMITED_PRIOR) if limited else (1.0, _UNLIMITED_PRIOR)
        again = (self.again_refused + likely * weight) / (self.again + weight)
        return min(1.0, first / again) if first else 0.0

    def accounts(self, ratio: float) -> float:
        """How many of the refusals are the account's, which refuses both groups alike.

        It refuses a try with likelihood first * ratio. That is the ratio of the first tries' refusals, and
        its square of the others': first * ratio = again * ratio * ratio.
        """
        return ratio * self.first_refused + ratio * ratio * self.again_refused


class Rate:
    """The rate of posts this process allows itself."""

    def __init__(self, ceiling: float | None = None) -> None:
        self.ceiling = ceiling
        self.limit = ceiling
        self._tokens = 1.0
        self._filled_at = 0.0
        self._refused_at = -inf
        self._known = _Tries()
        self._share = (0.0, 0.0)
        self._calm = 0.0
        self._start_round(-inf, 0)

    def __repr__(self) -> str:
        """A sentence for logs."""
        return "as fast as it goes" if self.limit is None else f"at most {self.limit:,.0f} posts a second"

    def begin(self, now: float) -> None:
        """A new invocation: what was learnt long ago no longer holds, and no time was saved up."""
        if now - self._refused_at > _FORGET:
            self.limit = self.ceiling
            self._known, self._share, self._calm = _Tries(), (0.0, 0.0), 0.0
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
        self._held = True
        return max(_TURN, (1.0 - self._tokens) / self.limit)

    def refused(self, in_a_row: int, now: float, answers: int, *, lately: bool) -> bool:
        """A 429; True where it may well be the account's doing, so that it is no failed try of the client's.

        ``in_a_row`` counts the client's refusals at this message, this one too; ``lately``: it was refused
        at the message before. ``answers`` are all of this broadcast so far, this one too.
        """
        self._sort(in_a_row - 1, lately=lately, refused=True)
        likely = self._likelihood(answers) ** in_a_row >= _UNLIKELY
        if not self._limited and self._first_refused >= max(_FLOOD, _FLOOD_SHARE * (answers - self._answers)):
            self._end_round(now, answers)
        return likely

    def taken(self, refusals: int) -> None:
        """A try of a client that was refused lately was let through, after so many refusals of this message."""
        self._sort(refusals, lately=True, refused=False)

    def tick(self, now: float, answers: int) -> None:
        """Ends a round once it is long enough; ``answers`` counts all of this broadcast so far."""
        if now - self._round_at >= ROUND - _PLAY and answers > self._answers:
            self._end_round(now, answers)

    @property
    def _limited(self) -> bool:
        """Whether there is a limit that was found; the ceiling alone is none."""
        return self.limit != self.ceiling

    def _sort(self, refusals: int, *, lately: bool, refused: bool) -> None:
        """A try after so many refusals in a row, to its group."""
        if refusals > _TRIES_THAT_TELL:
            self._no_evidence += 1
            self._late_let_through += not refused
        elif refusals or lately:
            self._again += 1
            self._again_refused += refused
        else:
            self._first_refused += refused

    def _tries(self, answers: int) -> _Tries:
        """Those of this round."""
        first = answers - self._answers - self._again - self._no_evidence
        return _Tries(first, self._first_refused, self._again, self._again_refused)

    def _likelihood(self, answers: int) -> float:
        """Of the account refusing a try, by this round and what is remembered of those before."""
        tries = self._tries(answers)
        ratio = self._known.plus(tries).ratio(limited=self._limited)
        refused, of = self._share
        return min(_MOST, (refused + tries.accounts(ratio)) / max(_ENOUGH, of + tries.all))

    def _end_round(self, now: float, answers: int) -> None:
        tries = self._tries(answers)
        if tries.all:
            known = self._known.plus(tries) if tries.compared else self._known
            ratio = known.ratio(limited=self._limited)
            accounts = tries.accounts(ratio)
            seconds = max(_TURN, now - self._round_at)
            let_through = (tries.let_through + self._late_let_through) / seconds
            if not self._limited:
                # Where nothing was let through, one post more may have been.
                self._first_cut(tries, accounts, max(let_through, 1 / seconds), now)
            elif tries.compared or ratio >= _SURE:
                self._move(tries, accounts, let_through, now)
            self._remember(tries, accounts)
        self._start_round(now, answers)

    def _first_cut(self, tries: _Tries, accounts: float, let_through: float, now: float) -> None:
        if accounts > max(_FEW, _FIRST_SHARE * tries.all):
            self._set(let_through)
            self._tokens, self._calm, self._refused_at = 0.0, 0.0, now

    def _move(self, tries: _Tries, accounts: float, let_through: float, now: float) -> None:
        """Grow by the step and shrink by the share."""
        assert self.limit is not None
        if accounts >= _SIGN:
            self._refused_at = now
        answers = max(_ENOUGH, tries.all)
        part = min(1.0, max(_SMALLEST_PART, tries.all / _ENOUGH))
        step = part * min(_STEP, _CREEP / sqrt(self.limit))
        self._calm = self._calm + step * answers if accounts < _REFUSAL else 0.0
        growth = min(_LEAP, step * 2 ** min(9.0, max(0.0, self._calm - _CALM)))
        change = growth - accounts / answers
        if change > 0:
            self._set(self.limit * (1 + change * self._held))
        else:
            least = max(let_through, _DEEPEST * self.limit)
            self._set(min(self.limit, max(least, self.limit * (1 + change))))

    def _set(self, limit: float) -> None:
        limit = max(_LEAST, limit)
        self.limit = limit if self.ceiling is None else min(self.ceiling, limit)

    def _remember(self, tries: _Tries, accounts: float) -> None:
        if tries.compared:
            known = self._known.plus(tries)
            self._known = known.times(min(_FADE, _MEMORY / max(1.0, known.again)))
        refused, of = self._share[0] + accounts, self._share[1] + tries.all
        part = min(1.0, _SHARE_MEMORY / of)
        self._share = (refused * part, of * part)

    def _start_round(self, now: float, answers: int) -> None:
        self._round_at = now
        self._answers = answers
        self._again = self._again_refused = self._first_refused = 0
        self._no_evidence = self._late_let_through = 0
        self._held = False
