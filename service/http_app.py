"""
The FastAPI application: its router finds the endpoint; each checks what is common to all, reads the body, replies.

Endpoints are plain ASGI callables on FastAPI's router and not FastAPI path functions, whose share of ``POST /route``
was larger than that of the model (docs/service.md has the measurement). Everything that is refused is told as an
RFC 9457 problem document.
"""

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp

from service.errors import (
    BodyTooLarge,
    BodyTooSlow,
    InvalidField,
    MethodNotAllowed,
    ServiceError,
    Unauthorized,
    Unexpected,
    UnknownPath,
    UnsupportedMediaType,
    problem_of,
)
from service.telemetry import Telemetry

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

_SAFE: tuple[Header, ...] = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
JSON: tuple[Header, ...] = ((b"content-type", b"application/json"), *_SAFE)
TEXT: tuple[Header, ...] = ((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"), *_SAFE)
PROBLEM: tuple[Header, ...] = ((b"content-type", b"application/problem+json"), *_SAFE)
DEPARTURE = "router.on_departure"
"""Key of the scope under which the connection finds what to call when the client goes away (``server.Connection``)."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent."""

    status: int
    body: bytes
    headers: Sequence[Header] = JSON


@dataclass(frozen=True)
class Endpoint:
    """What serves one method of one path."""

    handle: Callable[[bytes], Awaitable[Reply]]
    body_limit: int | None = None
    """Bytes of JSON it takes; None for an endpoint without a body."""
    is_open: bool = False
    """Served without an API key."""


class Lifetime(Protocol):
    """What starts before the first request and stops after the last."""

    is_shutting_down: bool

    async def start(self) -> None:
        """Raises when the service must not start."""

    async def stop(self) -> None:
        """Everything admitted is answered by then."""


class ClientDeparted(Exception):
    """The connection ended before the body was complete."""


class HttpApp(FastAPI):
    """The application; routes are those of ``endpoints``."""

    def __init__(
        self,
        endpoints: Mapping[tuple[str, str], Endpoint],
        lifetime: Lifetime,
        telemetry: Telemetry,
        *,
        api_keys: Sequence[str],
        body_timeout_s: float,
    ) -> None:
        """``endpoints`` by method and path."""
        # The document is made from the same models by service.openapi, and served by an endpoint of ours.
        super().__init__(title="MangaAssist router", openapi_url=None, redirect_slashes=False)
        for (method, path), endpoint in endpoints.items():
            route = Route(path, _Served(self, endpoint), methods=[method])
            # Starlette would add HEAD, which the contract does not have.
            route.methods = {method}
            self.router.routes.append(route)
        self._lifetime = lifetime
        self._metrics = telemetry
        self._key_digests = [hashlib.sha256(key.encode()).digest() for key in api_keys]
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the life of the process."""
        if scope["type"] == "lifespan":
            # Not Starlette's own: a service that cannot start says why in one line, without a traceback.
            await self._live(receive, send)
        else:
            await super().__call__(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """
        The router alone: what FastAPI would put around it serves path functions, and cost a fifth of a refusal.

        Endpoints tell every error themselves; what is left to catch is a path or method that the router refuses.
        """
        return self._route

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.router(scope, receive, send)
        except HTTPException as error:
            await self._refuse_unrouted(scope, error, send)

    async def serve(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        """One request to an endpoint, counted whatever becomes of it."""
        began = time.perf_counter()
        try:
            reply = await self._reply(endpoint, scope, receive)
        except ClientDeparted:
            self._metrics.record_departure()
            return
        except asyncio.CancelledError:
            if not scope.get("router.departed"):
                raise
            self._metrics.record_departure()
            return
        await self._send(reply, send)
        self._metrics.record_request(scope["path"], reply.status, time.perf_counter() - began)

    async def _refuse_unrouted(self, scope: Scope, error: HTTPException, send: Send) -> None:
        """What the router refuses: an unknown path, or a method that the path does not take."""
        refusal: ServiceError = UnknownPath("nothing is served under this path; GET /openapi.json lists what is")
        allowed = (error.headers or {}).get("Allow")
        if allowed:
            refusal = MethodNotAllowed(scope["method"], tuple(sorted(allowed.split(", "))))
        reply = self._problem(refusal)
        await self._send(reply, send)
        self._metrics.record_request("other", reply.status, 0.0)

    async def _reply(self, endpoint: Endpoint, scope: Scope, receive: Receive) -> Reply:
        try:
            headers = _chosen(scope["headers"])
            if not endpoint.is_open and self._key_digests:
                self._check_key(headers.get(b"x-api-key"))
            body = b""
            if endpoint.body_limit is not None:
                _check_media_type(headers.get(b"content-type"))
                body = await self._read(receive, endpoint.body_limit, headers.get(b"content-length"))
                _watch_departure(scope)
            return await endpoint.handle(body)
        except ServiceError as error:
            return self._problem(error)
        except ClientDeparted:
            raise
        except Exception as error:
            unexpected = Unexpected("the service failed; its log has more under this request id")
            unexpected.request_id = secrets.token_hex(16)
            log.exception("a request failed", extra={"request_id": unexpected.request_id}, exc_info=error)
            return self._problem(unexpected)
        finally:
            # It holds the scope that holds it: left there, every request would be one more for the garbage collector.
            scope.pop(DEPARTURE, None)

    def _check_key(self, key: bytes | None) -> None:
        # Digests have one length, and every key is compared: the time taken tells nothing about any of them.
        given = hashlib.sha256(key or b"").digest()
        if sum(hmac.compare_digest(given, known) for known in self._key_digests) == 0:
            raise Unauthorized("send a valid key in the header X-API-Key")

    async def _read(self, receive: Receive, limit: int, declared: bytes | None) -> bytes:
        """The body, of at most ``limit`` bytes; what is beyond is not kept."""
        if declared is not None and (not declared.isdigit() or int(declared[:20]) > limit):
            raise BodyTooLarge(f"the body may have at most {limit} bytes, Content-Length says otherwise")
        message = await receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body", False) or message["type"] != "http.request":
            body = await self._read_rest(message, receive, limit)
        if len(body) > limit:
            raise BodyTooLarge(f"the body may have at most {limit} bytes")
        return body

    async def _read_rest(self, message: Message, receive: Receive, limit: int) -> bytes:
        parts = bytearray()
        try:
            async with asyncio.timeout(self._body_timeout_s):
                while True:
                    if message["type"] != "http.request":
                        raise ClientDeparted
                    parts += message.get("body", b"")
                    if len(parts) > limit:
                        raise BodyTooLarge(f"the body may have at most {limit} bytes")
                    if not message.get("more_body", False):
                        return bytes(parts)
                    message = await receive()
        except TimeoutError:
            raise BodyTooSlow(f"the body must be complete within {self._body_timeout_s} s") from None

    def _problem(self, error: ServiceError) -> Reply:
        problem = problem_of(error)
        self._metrics.record_refusal(problem.error_type)
        level = logging.WARNING if problem.status in (500, 504) else logging.DEBUG
        log.log(level, "%s: %s", problem.error_type, error, extra={"request_id": error.request_id})
        return Reply(problem.status, _document(error), _problem_headers(error))

    async def _send(self, reply: Reply, send: Send) -> None:
        headers = [*reply.headers, (b"content-length", b"%d" % len(reply.body))]
        if self._lifetime.is_shutting_down or reply.status in (408, 413):
            # While shutting down: the client's next request then goes elsewhere, instead of into a closed socket.
            # After an unread body: the rest of it is not worth reading.
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._lifetime.start()
        except Exception as error:
            log.critical("the service does not start: %s", error)
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._lifetime.stop()
        await send({"type": "lifespan.shutdown.complete"})


class _Served:
    """An endpoint as the ASGI callable that the router wants."""

    def __init__(self, app: HttpApp, endpoint: Endpoint) -> None:
        self._app = app
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app.serve(self._endpoint, scope, receive, send)


_CHOSEN = frozenset({b"content-type", b"content-length", b"x-api-key"})


def _chosen(headers: Sequence[Header]) -> dict[bytes, bytes]:
    return {name: value for name, value in headers if name in _CHOSEN}


_PLAIN_JSON = b"application/json"


def _check_media_type(content_type: bytes | None) -> None:
    if content_type == _PLAIN_JSON:
        return
    media_type, _, parameters = (content_type or b"").lower().partition(b";")
    parameters = parameters.replace(b" ", b"").replace(b'"', b"")
    if media_type.strip() != _PLAIN_JSON or parameters not in (b"", b"charset=utf-8", b"charset=utf8"):
        raise UnsupportedMediaType("the header Content-Type must be application/json, in UTF-8")


def _watch_departure(scope: Scope) -> None:
    """Have the request cancelled when its client goes away, so that it takes no batch slot."""
    task = asyncio.current_task()

    def depart() -> None:
        scope["router.departed"] = True
        if task is not None:
            task.cancel()

    scope[DEPARTURE] = depart


def _document(error: ServiceError) -> bytes:
    problem = problem_of(error)
    document: dict[str, Any] = {
        "type": problem.uri,
        "title": problem.title,
        "status": problem.status,
        "detail": str(error)[:1000],
        "error_type": problem.error_type,
    }
    if error.request_id is not None:
        document["request_id"] = error.request_id
    if isinstance(error, InvalidField):
        document["errors"] = [{"field": fault.field, "message": fault.message} for fault in error.faults]
    return orjson.dumps(document)


def _problem_headers(error: ServiceError) -> Sequence[Header]:
    problem = problem_of(error)
    headers = list(PROBLEM)
    if problem.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % problem.retry_after_s))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    if isinstance(error, Unauthorized):
        headers.append((b"www-authenticate", b"ApiKey"))
    return headers
