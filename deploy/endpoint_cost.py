"""
What one ``POST /route`` costs the event loop beside the model: ``python -m deploy.endpoint_cost``.

In this process, without a socket: read the body, validate, count, write an answer of ten intents as JSON. Each way of
serving it is timed in turn, several times, and the median of a call is printed in microseconds.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
from fastapi import FastAPI

from service.http_app import Endpoint, HttpApp, Reply
from service.schemas import ROUTE, parse
from service.telemetry import Telemetry

BODY = orjson.dumps({"text": "has my parcel left the warehouse, and may I still add a volume to it?"})
INTENTS = [f"intent_{number}" for number in range(10)]
ANSWER = {
    "request_id": "c0ffee",
    "decision": "single",
    "intents": [{"intent": INTENTS[0], "probability": 0.91}],
    "top": {"intent": INTENTS[0], "probability": 0.91},
    "probabilities": dict.fromkeys(INTENTS, 0.1),
    "ood": {"is_ood": False, "energy": -6.1, "cut": -3.9},
    "high_risk": False,
    "high_risk_reasons": [],
    "age_sensitive": False,
    "model": {"version": "1", "policy": "1.1", "role": "champion"},
    "timings_ms": {"tokenize": 0.1, "queue": 0.4, "inference": 2.0, "total": 2.6},
}

Application = Callable[[Any, Any, Any], Awaitable[None]]


class _Alive:
    is_shutting_down = False

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Nothing to stop."""


class _WithMiddleware(HttpApp):
    build_middleware_stack = FastAPI.build_middleware_stack


async def route(body: bytes) -> Reply:
    """What the endpoint does but for the engine."""
    parse(ROUTE, body)
    return Reply(200, orjson.dumps(ANSWER))


def applications() -> dict[str, Application]:
    """The same endpoint by every way of serving it."""
    endpoint, telemetry = Endpoint(route, body_limit=65_536), Telemetry()
    app, stock = (
        kind({("POST", "/route"): endpoint}, _Alive(), telemetry, api_keys=(), body_timeout_s=10.0)
        for kind in (HttpApp, _WithMiddleware)
    )

    async def alone(scope: Any, receive: Any, send: Any) -> None:
        await app.serve(endpoint, scope, receive, send)

    return {
        "the endpoint alone": alone,
        "behind FastAPI's router (what is served)": app,
        "behind FastAPI's middleware and router": stock,
    }


async def call(application: Application) -> list[dict[str, Any]]:
    """One request; the messages of its answer."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/route",
        "raw_path": b"/route",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))],
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await application(scope, receive, send)
    return sent


async def measure(calls: int, repeats: int) -> dict[str, float]:
    """Microseconds a call of each, the median of the repeats."""
    served = applications()
    found: dict[str, list[float]] = {name: [] for name in served}
    for _ in range(repeats):
        for name, application in served.items():
            began = time.perf_counter()
            for _ in range(calls):
                await call(application)
            found[name].append((time.perf_counter() - began) / calls * 1e6)
    return {name: statistics.median(times) for name, times in found.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=9)
    chosen = parser.parse_args(arguments)
    print("| served | microseconds |\n|---|---|")
    for name, microseconds in asyncio.run(measure(chosen.calls, chosen.repeats)).items():
        print(f"| {name} | {microseconds:.0f} |")


if __name__ == "__main__":
    main()
