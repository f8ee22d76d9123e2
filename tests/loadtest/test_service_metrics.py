"""Reading the service's counters."""

from loadtest.service_metrics import samples, total

PAGE = """\
router_batch_utterances_sum{worker="1"} 3.0
router_batch_utterances_sum{worker="2"} 4.5
router_batch_utterances_sum_of_something 9.0
"""


def test_metric_is_summed_over_the_labels_that_are_not_named() -> None:
    """Another metric with a longer name is another, and one that is not there is nothing."""
    found = samples(PAGE)
    assert total(found, "router_batch_utterances_sum") == 7.5
    assert total(found, "router_batch_utterances_sum", worker="2") == 4.5
    assert total(found, "router_batch_utterances") == 0.0
