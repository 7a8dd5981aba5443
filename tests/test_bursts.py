"""Bursts beside a naive handler, and posts in flight: their arithmetic, what they refuse, and a small run of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import bursts, places
from benchmarks.bursts import WAYS, Row
from benchmarks.command import USAGE, CommandError, exit_code
from benchmarks.peers.worker import Figures, connection_id

ARRAYS, OBJECTS, NAIVE = WAYS


def row(way: bursts.Way, clients: int, posts: int, metered: int, *runs: tuple[float, float]) -> Row:
    """A way that took so many seconds of CPU and of wall time in each of its runs, for 100 records."""
    return Row(way, 100, clients, posts, metered, [Figures(0, cpu, wall, 0.0) for cpu, wall in runs])


def lines(printed: str) -> dict[str, list[str]]:
    """The rows of a Markdown table, by their first cell."""
    found = (line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("| "))
    return {first: rest for first, *rest in found}


@pytest.mark.parametrize(
    ("script", "arguments", "sentence"),
    [
        (bursts.main, ["--clients", "9"], "Invalid value for '--clients': "),
        (bursts.main, ["--records", "0"], "Invalid value for '--records': "),
        (places.main, ["--clients", "0"], "Invalid value for '--clients': "),
    ],
)
def test_a_wrong_option_is_one_sentence(
    script: Callable[..., int], arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(script, arguments) == USAGE
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_cpu_and_dollars_are_of_messages_and_not_of_posts() -> None:
    """100 messages in two posts cost a fiftieth of 100 posts."""
    arrays = row(ARRAYS, 1_000, 2, 2, (0.2, 1.0), (0.4, 1.0), (0.3, 1.0))
    assert arrays.cpu == pytest.approx((3.0, 2.0, 4.0))
    assert arrays.dollars == pytest.approx(0.02)


def test_a_post_of_more_than_32_kb_is_paid_twice() -> None:
    assert row(ARRAYS, 1_000, 1, 2, (0.2, 1.0)).dollars == pytest.approx(0.02)


def test_a_share_of_the_clients_stands_for_all() -> None:
    """A tenth of the clients: ten times the posts and the seconds, and the same CPU a message."""
    naive = row(NAIVE, 100, 100, 100, (8.0, 8.5))
    assert (naive.all_posts, naive.seconds, naive.cpu.median) == (100_000, 85.0, 800.0)


def test_nobody_is_faster_than_the_quota() -> None:
    assert row(NAIVE, 100, 100, 100, (8.0, 0.5)).seconds == 10.0


def test_a_ratio_compares_what_ran_in_the_same_round() -> None:
    """The machine was three times slower in the second round, for both of them."""
    ours = row(OBJECTS, 1_000, 100, 100, (2.0, 1.0), (6.0, 1.0))
    naive = row(NAIVE, 100, 100, 100, (8.0, 1.0), (24.0, 1.0))
    assert ours.times(naive) == pytest.approx(40)


class FakeGateway:
    """What has arrived is said beforehand."""

    def __init__(self, received: Mapping[str, list[bytes]]) -> None:
        self.received = received
        self.arrivals = Counter({client: len(bodies) for client, bodies in received.items()})

    def clear(self) -> None:
        """Nothing is forgotten."""


def fake_stage(received: Mapping[str, list[bytes]]) -> Any:
    """A stage with that gateway."""
    table = SimpleNamespace(call=lambda *_arguments: None)
    return SimpleNamespace(gateway=FakeGateway(received), table=table)


def test_a_client_that_got_a_post_less_fails_the_run() -> None:
    peer: Any = SimpleNamespace(run=lambda _clients: Figures(2, 1.0, 1.0, 1.0))
    measured = row(OBJECTS, 2, 1, 1)
    bursts._run(fake_stage({connection_id(0): [b"1"], connection_id(1): [b"1"]}), measured, peer)
    with pytest.raises(CommandError, match="2 posts arrived at 1 clients, and not 1 at each of 2"):
        bursts._run(fake_stage({connection_id(0): [b"1", b"2"]}), measured, peer)
    assert len(measured.runs) == 1


@pytest.mark.parametrize(
    "bodies",
    [
        [b'[{"incident_id": "inc-000000000002"}, {"incident_id": "inc-000000000001"}]'],
        [b'{"incident_id": "inc-000000000001"}'],
        [b'{"incident_id": "inc-000000000001"}', b'[{"incident_id": "inc-000000000001"}]'],
    ],
    ids=["not in order", "one is missing", "one twice"],
)
def test_messages_that_are_not_all_there_in_order_fail_the_run(
    bodies: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = SimpleNamespace(run=lambda _clients: None, close=lambda: None)
    monkeypatch.setattr(bursts, "setup_for", lambda *_arguments: None)
    monkeypatch.setattr(bursts, "PythonProcess", lambda *_arguments: silent)
    with pytest.raises(CommandError, match="did not get the 2 messages, each once and in order"):
        bursts.checked(fake_stage({connection_id(number): bodies for number in range(20)}), ARRAYS, 2)


def test_a_small_burst(capsys: pytest.CaptureFixture[str]) -> None:
    """Sixty messages of 600 bytes are two frames, and sixty posts for all others."""
    assert exit_code(bursts.main, ["--clients", "10", "--repetitions", "1", "--records", "60"]) == 0
    found = lines(capsys.readouterr().out)
    assert {first: (rest[3], rest[-1]) for first, rest in found.items() if first.startswith("60")} == {
        "60: async-relay, arrays": ("20", "0.03"),
        "60: async-relay, objects": ("600", "1.00"),
        "60: naive aioboto3 handler": ("600", "1.00"),
    }


def test_small_broadcasts_with_few_and_many_places(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each opens a socket at least, and no more than it has places."""
    monkeypatch.setattr(places, "_MILLISECONDS", (20,))
    assert exit_code(places.main, ["--clients", "150"]) == 0
    printed = capsys.readouterr().out.splitlines()
    cells = [line.strip("| ").split(" | ") for line in printed if line.startswith("| 150")]
    assert [(each[:3], 0 < int(each[3]) <= int(each[2])) for each in cells] == [
        (["150", "20 ms", "100"], True),
        (["150", "20 ms", "300"], True),
    ]
