"""Who may use the page: requests as browsers send them, for this page and for others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message

from ssd_triton.viewing.guard import HEADERS, LOOPBACK_NAMES, Guard

TOKEN = "t" * 40
Headers = dict[str, str]


def ask(guard: Guard, headers: Headers, *, path: str = "/api/detect", method: str = "POST", query: str = "") -> Any:
    """Status and headers of an answer; for a WebSocket whether it was let through."""
    sent: list[Message] = []
    is_socket = method == "WS"
    scope = {
        "type": "websocket" if is_socket else "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }

    async def receive() -> Message:
        return {"type": "websocket.connect"} if is_socket else {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    if is_socket:
        return sent[0]["type"] == "websocket.accept"
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


async def inside(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await PlainTextResponse("inside")(scope, receive, send)


def local() -> Guard:
    return Guard(inside, scheme="http", hosts=LOOPBACK_NAMES, token=None, port=8080)


@pytest.mark.parametrize(
    ("headers", "is_let_in"),
    [
        ({"host": "127.0.0.1:8080"}, True),
        ({"host": "localhost:9000", "origin": "http://localhost:9000", "sec-fetch-site": "same-origin"}, True),
        ({"host": "[::1]:8080", "origin": "http://[::1]:8080"}, True),
        ({"host": "rebound.example:8080"}, False),  # a name of the attacker's that points here
        ({"host": "rebound.example:8080", "origin": "http://rebound.example:8080"}, False),
        ({}, False),
        ({"host": "localhost:8080", "origin": "http://elsewhere.example"}, False),
        ({"host": "localhost:8080", "origin": "null"}, False),
        ({"host": "localhost:8080", "origin": "http://localhost:3000"}, False),  # another program of this machine
        ({"host": "localhost:8080", "origin": "https://localhost:8080"}, False),
        ({"host": "localhost:8080", "sec-fetch-site": "cross-site"}, False),
        ({"host": "localhost:8080", "sec-fetch-site": "same-site"}, False),
    ],
)
def test_only_the_page_itself_is_answered(headers: Headers, is_let_in: bool) -> None:
    status, answered = ask(local(), headers)
    assert status == (200 if is_let_in else 403)
    assert {name: answered[name.lower()] for name in HEADERS} == HEADERS
    assert ask(local(), headers, method="WS", path="/api/drive") is is_let_in


def test_a_link_from_another_site_opens_the_page_and_nothing_else() -> None:
    headers = {"host": "localhost:8080", "sec-fetch-site": "cross-site"}
    assert ask(local(), headers, path="/", method="GET")[0] == 200
    assert ask(local(), headers, path="/api/status", method="GET")[0] == 403


def test_beyond_loopback_a_browser_shows_the_token_once() -> None:
    guard = Guard(inside, scheme="https", hosts=None, token=TOKEN, port=443)
    host = {"host": "detector.example"}
    for given in ("", "x" * 40, "é"):
        assert ask(guard, host, path="/", method="GET", query=f"token={given}")[0] == 403
    status, headers = ask(guard, host, path="/", method="GET", query=f"token={TOKEN}")
    assert (status, headers["location"]) == (303, "/")
    cookie, *attributes = headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=strict", "Secure"} <= set(attributes)
    assert ask(guard, {**host, "cookie": cookie})[0] == 200
    assert ask(guard, {**host, "cookie": cookie}, method="WS")
    assert not ask(guard, {**host, "cookie": f"{cookie}x"}, method="WS")
    # The token opens the page alone: an address with it in a picture's source gets nothing.
    assert ask(guard, host, method="GET", query=f"token={TOKEN}")[0] == 403
