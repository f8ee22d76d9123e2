"""
Load tests and benchmarks of the service. They speak HTTP only and aim at loopback only.

In reading order, the load test (``python -m loadtest``):

- ``messages``: what is sent, and its labels
- ``traffic``: the messages drawn so that the mix has the shares of real traffic
- ``shapes``: how many people are there at each second
- ``slo``: the verdict on latencies and errors
- ``locustfile``: the people, for Locust
- ``server_process``: servers under test, started and stopped

and the benchmark (``python -m loadtest.bench``):

- ``wire``: requests and responses as bytes
- ``latency``: samples and their summary
- ``load_plan``: what an open-loop run sends, and what came of it
- ``timer``: wakes a poll without rounding
- ``openload``: the open loop: a constant rate whatever the server does
- ``closed_loop``: one client alone
- ``rate_search``: how the highest rate is looked for
- ``contest``: servers measured side by side
- ``baseline``: the plain service that people use instead
- ``baseline_network``: its network
- ``make_baseline``: its model, as int8 ONNX
- ``bench_report``: the tables
- ``bench``: the whole of it
- ``service_metrics``: the service's own counters
- ``stages``: where the time of a request goes (``python -m loadtest.stages``)
"""
