"""File descriptors: how many sockets a process may hold, and whether it has none left.

A process that has used up its descriptors cannot do anything any more: no socket to the table, no file of
a module to import. So sockets for posts take what there is less a reserve. In a Lambda there are 1,024.
"""

from __future__ import annotations

import socket
import sys
from errno import EMFILE, ENFILE

if sys.platform != "win32":
    import resource

#: What everything but posts needs: the runtime, the loop and its threads some 30; the table and the queues 8 sockets
#: each, and 10 each through the SDK; 16 handshakes under way with two more addresses to try each; modules being read.
RESERVED = 124
#: The sockets for posts that a Lambda has room for: it has 1,024 descriptors (Lambda quotas, "File descriptors").
MOST_IN_A_LAMBDA = 1_024 - RESERVED


def sockets_at_most(wanted: int) -> int:
    """How many sockets for posts there may be where ``wanted`` would be welcome.

    The process's limit less the reserve, but half of it where the limit is very low, and always one.
    """
    if sys.platform == "win32":
        return wanted
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, max(limit - RESERVED, limit // 2)))


def exhausted() -> bool:
    """Whether no descriptor is left, which a failed look-up of a name does not say."""
    try:
        socket.socket().close()
    except OSError as error:
        return lacks_descriptors(error)
    return False


def lacks_descriptors(error: OSError) -> bool:
    """Whether the error says that the process, or the machine, had no descriptor left."""
    return error.errno in (EMFILE, ENFILE)
