"""One client's way through a job: where it begins, and what is said of it when it is served no more."""

from __future__ import annotations

from outcomes import messages

from async_relay.delivery.lanes import Lane
from async_relay.delivery.report import Outcome, Undelivered
from async_relay.errors import ServerError, Throttled
from async_relay.wire.jobs import Client, Job, Shard

OUTCOME = Outcome(Job(messages(3), shard=Shard()), [0, 0, 0])
CLIENT = Client("c=", 1_700_000_000_000, 1)


def test_a_lane_begins_behind_what_its_client_has() -> None:
    """Untried and untroubled, at the first message the client lacks."""
    lane = Lane(CLIENT, OUTCOME)
    assert (lane.position, lane.tries, lane.troubled, lane.client) == (1, 0, False, CLIENT)


def test_a_client_is_undelivered_as_far_as_it_has_come() -> None:
    """With the age of its row, and the error of its latest try."""
    lane = Lane(CLIENT, OUTCOME)
    lane.position, lane.tries, lane.error = 2, 1, ServerError("HTTP 500")
    assert lane.undelivered() == Undelivered(CLIENT._replace(skip=2), lane.error)


def test_a_client_whose_refusals_counted_no_try_was_never_tried() -> None:
    """The account's limit is no failure of the client's: its job counts no attempt."""
    lane = Lane(CLIENT, OUTCOME)
    lane.refusals, lane.error = 3, Throttled("HTTP 429")
    assert lane.undelivered() == Undelivered(CLIENT, None)


def test_a_lane_says_in_the_log_how_far_it_is() -> None:
    lane = Lane(CLIENT, OUTCOME)
    lane.tries = 4
    assert repr(lane) == "<c=: 1 of 3 messages, 4 tries>"
