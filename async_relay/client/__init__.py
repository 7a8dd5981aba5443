"""A client of async-relay: a gapless picture, without repeats, never rolled back. Needs the extra ``client``.

::

    async with connect("wss://abc.execute-api.eu-west-1.amazonaws.com/prod", token=fresh_token) as relay:
        async for message in relay:
            print(message, relay.incidents)

picture       which messages are news, the newest state of each incident     pure
options       what it is told, what it tells, what it needs of the world
tokens        when a token ends
links         one connection: its timers, and what it waits for
catching_up   what is asked on each connection, and what the answers mean    no I/O
session       which connection leads, and when the next one is opened        no I/O
sockets       asyncio's time, and the library ``websockets``
connection    what a program holds in its hand

Nothing of it runs in Lambda. client/async-relay.js is the same for browsers.
"""

from .connection import Connection, Refused, connect
from .options import Detail, History, Options, State

__all__ = ["Connection", "Detail", "History", "Options", "Refused", "State", "connect"]
