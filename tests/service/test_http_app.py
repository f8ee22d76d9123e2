"""The application around the endpoints."""

import gc

import pytest

from deploy.endpoint_cost import applications, call

REQUESTS = 50


@pytest.mark.asyncio
async def test_answered_requests_leave_nothing_to_the_garbage_collector() -> None:
    """What is freed when its last user is done with it holds nobody up later."""
    app = applications()["behind FastAPI's router (what is served)"]
    await call(app)
    gc.collect()
    gc.disable()
    try:
        for _ in range(REQUESTS):
            await call(app)
        assert gc.collect() < REQUESTS
    finally:
        gc.enable()
