"""Who is refused: knocks at the API without a good token, each of which must be turned away.

On AWS a client without a good token is answered 401. The local AWS says 500 where an authorizer raises what means
401, so any refusal of the handshake counts here; that good tokens come in is what all dashboards show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException

from .feed import EVERY_TENANT
from .issuer import Issuer

_NAME = "stranger"
# What the local AWS answers, in AWS's own terms.
_ON_AWS: Mapping[int | str, str] = {500: " here, 401 on AWS"}
_LONG_AGO = -60


def bad_tokens(issuer: Issuer) -> Mapping[str, str | None]:
    """What strangers bring, by what is wrong with it."""
    return {
        "without a token": None,
        "with a token that has expired": issuer.token(_NAME, [EVERY_TENANT], seconds=_LONG_AGO),
        # The same claims, signed with a key of the stranger's own.
        "with a token that somebody else signed": Issuer(issuer.url).token(_NAME, [EVERY_TENANT]),
    }


async def knock(url: str, issuer: Issuer, tell: Callable[[str], None]) -> list[str]:
    """Try to come in with each bad token; complaints about those that were let in."""
    problems = []
    for what, token in bad_tokens(issuer).items():
        status = await _refusal(address(url, _NAME, token))
        if status is None:
            problems.append(f"a client {what} was let in")
        else:
            tell(f"A client {what} was refused ({status}{_ON_AWS.get(status, '')})")
    return problems


def address(url: str, name: str, token: str | None) -> str:
    """Where a client connects. The token is in the query, because the local AWS loses the subprotocol."""
    return f"{url}?clientId={name}" + (f"&access_token={token}" if token is not None else "")


async def _refusal(where: str) -> int | str | None:
    """The status with which the handshake was refused, or how else it ended; None where it was not."""
    try:
        async with connect(where, proxy=None, open_timeout=30, compression=None):
            return None
    except InvalidStatus as refusal:
        return refusal.response.status_code
    except WebSocketException as error:
        return type(error).__name__
