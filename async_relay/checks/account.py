"""Around the deployment: credentials, clock, the way to the endpoint, and the account's quota. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from .deployment import Deployment, NotCheckedError, Unknown, asked, known
from .findings import CREDENTIALS, Finding, note, ok, unchecked, wrong

STACK, CLOCK = "stack", "clock"
ENDPOINT, PROTOCOL, QUOTA = "endpoint", "protocol", "quota"
#: AWS refuses a signature that is five minutes off; Date has whole seconds, and answers take a while.
_REFUSED_SECONDS, _SUSPICIOUS_SECONDS = 300, 60
_HTTP_2 = "h2"
_FORBIDDEN, _GONE, _BAD_REQUEST, _OK, _THROTTLED = 403, 410, 400, 200, 429


def stack(deployment: Deployment) -> Iterator[Finding]:
    """Its last deployment ended well."""
    if not deployment.stack:
        raise NotCheckedError("settings alone were given: give --stack")
    if "FAILED" in deployment.status or deployment.status == "ROLLBACK_COMPLETE":
        yield wrong(
            STACK,
            f"{deployment.stack} is {deployment.status}.",
            "Its resources may be half made or half changed.",
            "Read the stack's events in CloudFormation, mend the first failure, and deploy again.",
        )
    elif deployment.status.endswith("IN_PROGRESS") or "ROLLBACK" in deployment.status:
        yield note(STACK, f"{deployment.stack} is {deployment.status}.")
    else:
        yield ok(STACK, f"{deployment.stack} is {deployment.status}.")


def credentials(deployment: Deployment) -> Iterator[Finding]:
    """AWS knows who asks."""
    identity = known(deployment.identity)
    if identity is not None:
        yield ok(CREDENTIALS, f"AWS knows these as {identity['Arn']}.")


def clock(deployment: Deployment) -> Iterator[Finding]:
    """The clock of this machine, by which it signs; a function's clock is AWS's."""
    ahead = asked(asked(deployment.endpoint).ahead_seconds)
    told = f"This machine's clock is {abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} the endpoint's"
    if abs(ahead) >= _REFUSED_SECONDS:
        yield wrong(
            CLOCK,
            f"{told}.",
            "AWS refuses signatures that are five minutes off, so nothing that runs on this machine can call it.",
            "Set the clock by NTP.",
        )
    elif abs(ahead) >= _SUSPICIOUS_SECONDS:
        yield note(CLOCK, f"{told}; from 300 s on AWS refuses what is signed here.")
    else:
        yield ok(CLOCK, f"{told}.")


def endpoint(deployment: Deployment) -> Iterator[Finding]:
    """A connection to it can be opened, and it answers as API Gateway does."""
    met, url = asked(deployment.endpoint), deployment.setting("ws_endpoint")
    if met.problem:
        yield wrong(
            ENDPOINT,
            f"{url} cannot be reached: {met.problem}.",
            "If it is the same for the functions, nobody gets anything and every batch goes back to the stream.",
            "Compare WS_ENDPOINT with the API's address, then its DNS, the network and AWS_CA_BUNDLE "
            "(docs/deploy.md#a-domain-of-your-own).",
        )
        return
    if isinstance(met.connection, Unknown):
        yield note(ENDPOINT, f"{url} opens a connection.")
        yield unchecked(ENDPOINT, f"whether the stage is there: {met.connection.reason}")
    elif met.connection in (_GONE, _BAD_REQUEST, _OK):
        yield ok(ENDPOINT, f"{url} answers for @connections ({met.connection} for an id that nobody has).")
    elif met.connection == _FORBIDDEN:
        yield unchecked(
            ENDPOINT,
            f"whether the stage is there: {url} answers 403, which it also does to credentials that may not "
            "execute-api:ManageConnections on GET/@connections/*",
        )
    elif met.connection == _THROTTLED:
        yield unchecked(
            ENDPOINT,
            f"whether the stage is there: {url} answers 429, as API Gateway does while the account's limit is used up",
        )
    else:
        yield wrong(
            ENDPOINT,
            f"{url} answers {met.connection} for @connections, as API Gateway does not.",
            "Posts fail in the same way, so nobody gets anything.",
            "Compare WS_ENDPOINT with the API's address and stage (docs/deploy.md#a-domain-of-your-own).",
        )


def protocol(deployment: Deployment) -> Iterator[Finding]:
    """What TLS offers; AWS does not say whether ``@connections`` speaks HTTP/2."""
    met = asked(deployment.endpoint)
    chosen = asked(met.protocol)
    speaks = "HTTP/2 (h2)" if chosen == _HTTP_2 else f"{chosen or 'no protocol'} and not h2"
    yield note(
        PROTOCOL, f"Offered h2 and http/1.1, the endpoint chose {speaks}, over {met.tls}; the relay posts by HTTP/1.1."
    )


def quota(deployment: Deployment) -> Iterator[Finding]:
    """What the account may post is at least what the stack reckons with."""
    posts = deployment.parameters.get("AccountPostsPerSecond")
    if posts is None:
        raise NotCheckedError("settings have one function's share alone: give --stack")
    answer = known(deployment.quota)
    if answer is None:
        raise NotCheckedError("Service Quotas has no throttle rate of API Gateway for this account")
    allowed = float(answer["Value"])
    if float(posts) > allowed:
        yield wrong(
            QUOTA,
            f"AccountPostsPerSecond is {float(posts):,.0f}, and the account's quota {allowed:,.0f} requests a second.",
            "Posts are refused (429) until the relay finds the limit, and so are requests to the account's other APIs.",
            f"Set AccountPostsPerSecond to {allowed:,.0f} or less, or ask for more of quota L-8A5B8E43 of API Gateway "
            "(docs/deploy.md#who-may-post-how-much).",
        )
    else:
        yield ok(QUOTA, f"The stack takes {float(posts):,.0f} of the account's {allowed:,.0f} requests a second.")
