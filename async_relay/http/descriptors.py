"""File descriptors: how many sockets a process may hold, and whether it has none left.

A process without a free descriptor cannot open a socket to the table, nor a file to import. So the sockets
for posts may take all descriptors but a reserve. A Lambda has 1,024.
"""

from __future__ import annotations

import socket
import sys
from errno import EMFILE, ENFILE

if sys.platform != "win32":
    import resource

#: Descriptors for everything but posts: the runtime, the loop and its threads some 30; the table and the queues
#: 8 sockets each, and 10 each through the SDK; 16 handshakes with two more addresses to try each; modules to import.
RESERVED = 124
#: The sockets for posts that a Lambda has room for: it has 1,024 descriptors (Lambda quotas, "File descriptors").
MOST_IN_A_LAMBDA = 1_024 - RESERVED


def sockets_at_most(wanted: int) -> int:
    """How many of ``wanted`` sockets for posts the process may open.

    That is its limit less the reserve; half the limit where that is more; and always at least one.
    """
    if sys.platform == "win32":
        return wanted
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, max(limit - RESERVED, limit // 2)))


def exhausted() -> bool:
    """Whether no descriptor is left: a look-up of a name that fails for that reason gives another error."""
    try:
        socket.socket().close()
    except OSError as error:
        return lacks_descriptors(error)
    return False


def lacks_descriptors(error: OSError) -> bool:
    """Whether the error is that the process, or the machine, had no descriptor left."""
    return error.errno in (EMFILE, ENFILE)
