"""The API: its stage, where the functions post, and who is let in at ``$connect``. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from ..http.urls import endpoint_region
from .deployment import Deployment, NotCheckedError, known
from .findings import Finding, note, ok, wrong

API, DOOR = "API and stage", "door"


def api(deployment: Deployment) -> Iterator[Finding]:
    """There is a WebSocket API with that stage, and the functions post to it."""
    described, stage = known(deployment.api), deployment.parameters.get("StageName", "")
    if described is None or described["ProtocolType"] != "WEBSOCKET":
        yield wrong(
            API,
            f"There is no WebSocket API {deployment.api_id}.",
            "Nobody can connect, and every post fails.",
            "Correct WebSocketApiId, or leave it empty so that the stack makes an API.",
        )
        return
    found = known(deployment.stage)
    if found is None:
        yield wrong(
            API,
            f"The API {deployment.api_id} has no stage {stage}.",
            "Nobody can connect by that stage, and every post to it is answered 403.",
            "Set StageName to a stage of the API, or deploy the API there.",
        )
        return
    faults = list(_posts_elsewhere(deployment, stage, closed=bool(described.get("DisableExecuteApiEndpoint"))))
    yield from faults or [ok(API, f"The API {deployment.api_id} has the stage {found['StageName']}.")]


def _posts_elsewhere(deployment: Deployment, stage: str, *, closed: bool) -> Iterator[Finding]:
    endpoint = deployment.setting("ws_endpoint")
    if endpoint is None:
        return
    if endpoint_region(endpoint) is None:
        if not deployment.parameters.get("LocalEndpoint"):
            yield from _leads_elsewhere(deployment, endpoint, stage)
        return
    url = urlsplit(endpoint)
    if closed:
        yield wrong(
            API,
            "The execute-api endpoint is closed, and the functions post to it.",
            "Every post is answered 403, so nobody gets anything and every batch goes back to the stream.",
            "Set WebSocketEndpoint to the API's own domain (docs/deploy.md#a-domain-of-your-own).",
        )
    if (url.hostname or "").split(".")[0] != deployment.api_id or url.path.strip("/") != stage:
        yield wrong(
            API,
            f"The functions post to {endpoint}, and clients connect to {deployment.api_id}/{stage}.",
            "Every client counts as gone or forbidden, so nobody gets anything.",
            "Deploy the stack again, which sets WS_ENDPOINT, or correct WebSocketApiId and StageName.",
        )


def _leads_elsewhere(deployment: Deployment, endpoint: str, stage: str) -> Iterator[Finding]:
    """Where the API mapping of a domain of the owner's own leads, which has to be that of the whole path."""
    described, url = known(deployment.api_mappings), urlsplit(endpoint)
    if described is None:
        yield wrong(
            API,
            f"API Gateway has no domain {url.hostname} in this account and Region, and the functions post to it.",
            "Posts go to nobody who knows the clients, so nobody gets anything.",
            "Make the domain with a mapping to the stage, or correct WebSocketEndpoint "
            "(docs/deploy.md#a-domain-of-your-own).",
        )
        return
    leads = {each.get("ApiMappingKey", ""): (each["ApiId"], each["Stage"]) for each in described["Items"]}
    key = url.path.strip("/")
    if key not in leads:
        there = ", ".join(f"/{each}" for each in sorted(leads)) or "none"
        yield wrong(
            API,
            f"The functions post to {endpoint}, and the domain has no API mapping /{key} (it has: {there}).",
            "Every post is answered 403, so nobody gets anything and every batch goes back to the stream.",
            "Map that path to the stage, or correct WebSocketEndpoint (docs/deploy.md#a-domain-of-your-own).",
        )
    elif leads[key] != (deployment.api_id, stage):
        yield wrong(
            API,
            f"{endpoint} leads to {'/'.join(leads[key])}, and the stack's functions serve the clients of "
            f"{deployment.api_id}/{stage}.",
            "Every client of the stack counts as gone or forbidden, so nobody gets anything.",
            "Let the API mapping lead to that API and stage (docs/deploy.md#a-domain-of-your-own).",
        )


def door(deployment: Deployment) -> Iterator[Finding]:
    """What ``$connect`` asks for is what was chosen; a door without a lock is said aloud."""
    mode, told = deployment.setting("auth_mode"), deployment.parameters.get("AuthMode", "")
    if not deployment.stack:
        if mode == "none":
            yield note(
                DOOR,
                "AUTH_MODE is none: unless the API asks for something itself, ANYBODY who knows the URL may connect.",
            )
        raise NotCheckedError("settings alone do not say what the API asks for at $connect: give --stack")
    route = known(deployment.connect_route)
    if route is None:
        yield wrong(
            DOOR,
            "The API has no route $connect.",
            "Connections get no row, so nobody is sent anything, and nobody asks who they are.",
            "Deploy the stack again, or make the route that writes the connections table.",
        )
        return
    asks = route.get("AuthorizationType", "NONE")
    expected = {"jwt": "CUSTOM", "iam": "AWS_IAM", "none": "NONE"}.get(told, asks)
    if asks != expected:
        yield wrong(
            DOOR,
            f"$connect asks for {asks}, and AuthMode is {told}, which is {expected}.",
            "ANYBODY who knows the URL may connect."
            if asks == "NONE"
            else "Clients that should be let in are refused, or others are let in.",
            "Deploy the stack again with AuthMode as you mean it (docs/door.md#choosing-a-door).",
        )
    elif asks == "CUSTOM" and not route.get("AuthorizerId"):
        yield wrong(
            DOOR,
            "$connect asks for an authorizer, and none is attached.",
            "Every client is refused.",
            "Deploy the stack again with AuthMode=jwt (docs/door.md#choosing-a-door).",
        )
    elif asks == "NONE":
        yield note(DOOR, "OPEN: AuthMode is none, so ANYBODY who knows the URL may connect, and reads every message.")
    else:
        yield ok(DOOR, f"$connect asks for {asks}, as AuthMode={told} says.")
    if mode == "jwt" and asks == "NONE" and told != "jwt":
        yield wrong(
            DOOR,
            "The functions ask for a principal (AUTH_MODE=jwt), and no authorizer gives them one.",
            "Every client is refused.",
            "Attach the authorizer to $connect, or deploy the stack again with AuthMode=jwt.",
        )
