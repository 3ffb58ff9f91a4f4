"""Access control of the page: only its own origin may use it and, beyond loopback, only browsers with the token.

A browser sends requests on behalf of any site that is open in it. Requests of other sites are refused by ``Origin`` and
``Sec-Fetch-Site``, and foreign names that resolve to this machine (DNS rebinding) by ``Host``.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""Names of this machine in ``Host``; the port is not compared, since a forwarded port may have another number."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
"""Headers of every answer: nothing loads from elsewhere, no inline code runs, and no other site can frame the page."""


class Guard:
    """ASGI middleware that passes only requests of the page itself, and adds :data:`HEADERS` to every answer.

    Args:
        app: The application to guard.
        scheme: ``http`` or ``https``, as browsers see the page.
        hosts: Host names under which the page may be requested; None allows any, since the token protects the page.
        token: Token that a browser must have presented once as ``/?token=...``; None requires none.
        port: Part of the cookie's name, since browsers share cookies between the ports of a machine.
    """

    def __init__(
        self, app: ASGIApp, *, scheme: str, hosts: Collection[str] | None, token: str | None, port: int
    ) -> None:
        self._app = app
        self._scheme = scheme
        self._hosts = hosts
        self._token = token
        self._cookie = f"ssd-view-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._answer(scope)
        if answer is None:
            await self._app(scope, receive, send_with_headers)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            await answer(scope, receive, send_with_headers)

    def _answer(self, scope: Scope) -> Response | None:
        """Return a refusal, a redirect from the address with the token to the one without, or None to pass on."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if self._hosts is not None and name.lower() not in self._hosts:
            return _refusal("got another name of this machine, expected localhost: open the address that was printed")
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        is_page = scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == "/"
        if origin is not None and origin.lower() != f"{self._scheme}://{host.lower()}":
            return _refusal("got a request of another site, expected one of this page")
        if site not in (None, "same-origin", "none") and not is_page:
            return _refusal("got a request of another site, expected one of this page")
        if self._token is None or self._matches(self._token_of(headers)):
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if is_page and self._matches(given):
            entrance = RedirectResponse("/", HTTPStatus.SEE_OTHER)
            secure = self._scheme == "https"
            entrance.set_cookie(self._cookie, given, httponly=True, secure=secure, samesite="strict")
            return entrance
        return _refusal("got no token or a wrong one: open the address that was printed when the page started")

    def _matches(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(given.encode(), self._token.encode())

    def _token_of(self, headers: Headers) -> str:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return ""
        return "" if cookie is None else cookie.value


def _refusal(reason: str) -> Response:
    return JSONResponse({"error": reason}, HTTPStatus.FORBIDDEN)
