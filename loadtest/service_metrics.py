"""The service's own counters, read over HTTP."""

from collections.abc import Sequence

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


def read_metrics(url: str) -> list[Sample]:
    """What ``GET /metrics`` says now, of a service at ``url``; raises httpx.HTTPError."""
    return samples(httpx.get(f"{url}/metrics", timeout=10).raise_for_status().text)


def samples(page: str) -> list[Sample]:
    """Every sample of a page in the text format."""
    return [sample for family in text_string_to_metric_families(page) for sample in family.samples]


def total(found: Sequence[Sample], name: str, **labels: str) -> float:
    """
    The sum of the samples of that name that have these labels; 0 when there is none.

    >>> page = 'a_count{endpoint="/route"} 2.0\\na_count{endpoint="/feedback"} 1.0\\na_count_x 4.0\\n'
    >>> total(samples(page), "a_count"), total(samples(page), "a_count", endpoint="/route")
    (3.0, 2.0)
    """
    return float(sum(s.value for s in found if s.name == name and labels.items() <= s.labels.items()))
