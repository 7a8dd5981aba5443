"""Why somebody is not let in, or gets no answer. No sentence holds anything of a token: they are logged.

BadToken          the token is none, or not one for us
KeysUnavailable   nobody can tell now, since the issuer's keys cannot be had
CannotAnswer      what was asked makes no sense, or not here
"""

from __future__ import annotations

from ..errors import RelayError, Unavailable


class BadToken(RelayError):
    """A token that lets nobody in, and why."""


class KeysUnavailable(Unavailable):
    """The issuer's keys cannot be had: no token can be checked, so none is good."""


class CannotAnswer(RelayError):
    """The sentence that a client gets instead of what it asked for."""
