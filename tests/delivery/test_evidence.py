"""Which rows may go before an endpoint was ever answered 200."""

from __future__ import annotations

from async_relay.delivery.evidence import Evidence

NOW = 1_700_000_000


def test_twenty_five_rows_go_on_trust_and_all_once_the_endpoint_is_proved() -> None:
    """The same 25 may be tried again, no other may, until a 200 was seen."""
    evidence = Evidence(lambda: NOW)
    rows = [f"c{number}=" for number in range(40)]
    for _ in range(2):
        assert [each for each in rows if evidence.suffices(each, None)] == rows[:25]
    assert repr(evidence) == "no 200 yet; 25 rows went on trust"
    evidence.proven = True
    assert all(evidence.suffices(each, None) for each in rows)
    assert repr(evidence) == "the endpoint answered 200"


def test_a_row_older_than_any_connection_takes_no_trust() -> None:
    """Rows over two hours and ten minutes old go without being counted."""
    evidence = Evidence(lambda: NOW)
    old = NOW * 1000 - 131 * 60_000
    assert all(evidence.suffices(f"old{number}=", old) for number in range(100))
    assert repr(evidence) == "no 200 yet; 0 rows went on trust"
