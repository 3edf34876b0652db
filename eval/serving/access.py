"""Who may ask: the names by which a server may be addressed, the token, and the cookie that stands for it on the page."""

import hashlib
import hmac
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import URL, Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from eval.serving.settings import is_loopback

COOKIE = "blat_search_"  # and digits of the token's hash: browsers send cookies to all ports of a host
SCHEME = "bearer "


class Access:
    """Checks the headers of requests. All comparisons of secrets take the same time for every wrong value."""

    def __init__(self, token_sha256: str) -> None:
        """Without a hash no token is needed, and the server may be addressed only as this machine."""
        self.token_sha256 = token_sha256
        self.cookie_name = COOKIE + token_sha256[:8]
        # From the hash: all replicas and later runs with the same token take the cookie, and it does not hold the token.
        self.cookie = hmac.new(token_sha256.encode(), b"cookie of the page", hashlib.sha256).hexdigest()

    def is_host(self, host: str) -> bool:
        """Return whether the Host of a request may be answered.

        A page of another site can make its own name lead to 127.0.0.1, and then read what the server answers to it. Such a
        request has the name of that site as its Host, and no token.
        """
        return bool(self.token_sha256) or is_loopback(_without_port(host))

    def is_token(self, token: str) -> bool:
        """Return whether a token is the right one."""
        return hmac.compare_digest(hashlib.sha256(token.encode()).hexdigest(), self.token_sha256)

    def is_allowed(self, headers: Mapping[str, str]) -> bool:
        """Return whether a request has the token, or the cookie of the page."""
        if not self.token_sha256:
            return True
        authorization = headers.get("authorization", "")
        if authorization[: len(SCHEME)].lower() == SCHEME:
            return self.is_token(authorization[len(SCHEME) :].strip())
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(self.cookie_name)
        except CookieError:
            return False
        return morsel is not None and hmac.compare_digest(morsel.value.encode(), self.cookie.encode())

    def open_page(self, scope: Scope, query: str) -> Response:
        """Return the way to the search page, with the cookie that opens it. `query` is its search, without the `?`."""
        answer = RedirectResponse(f"./?{query}" if query else "./", 303)
        # A proxy with TLS says so; whoever makes that up gets a cookie that plain HTTP does not send.
        secure = "https" in (URL(scope=scope).scheme, Headers(scope=scope).get("x-forwarded-proto"))
        answer.set_cookie(self.cookie_name, self.cookie, httponly=True, samesite="lax", secure=secure)
        return answer


def _without_port(host: str) -> str:
    name, _, port = host.rpartition(":")
    return name if name and port.isdigit() and (name.endswith("]") or ":" not in name) else host
