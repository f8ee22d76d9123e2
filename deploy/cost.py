"""
What a request costs on Inferentia2 and on CPU instances: ``python -m deploy.cost``.

Every number is computed from deploy/cost_inputs.toml, where each input names its source; nothing is measured on a
Neuron device. Prints the tables of docs/cost.md, which a test compares with this.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INPUTS = Path(__file__).with_name("cost_inputs.toml")


@dataclass(frozen=True)
class Load:
    """CPU time of one request, and what its share of a packed row costs a NeuronCore."""

    host_ms: float
    """CPU milliseconds of everything but the engine: HTTP, tokenizer, decision, event log."""
    engine_ms: float
    """CPU milliseconds of the engine, where it runs on the CPU."""
    calls: float
    """Program calls an utterance takes part in, divided by those that share them."""
    tokens: float
    """Tokens computed an utterance, padding included."""
    call_ms: float
    token_ms: float

    @property
    def core_ms(self) -> float:
        """Milliseconds of one NeuronCore."""
        return self.calls * self.call_ms + self.tokens * self.token_ms


@dataclass(frozen=True)
class Instance:
    """A machine with its price."""

    name: str
    purchase: str
    """As in ``on demand``: only prices of the same kind are compared."""
    vcpus: int
    neuron_cores: int
    """0 on a CPU instance."""
    dollars_per_hour: float
    price_source: str


@dataclass(frozen=True)
class Rate:
    """What an instance serves, and what stops it from serving more."""

    instance: Instance
    host_per_s: float
    device_per_s: float | None
    utilisation: float

    @property
    def per_s(self) -> float:
        """Requests a second at the utilisation that leaves room for the latency budget."""
        limits = [self.host_per_s] + ([] if self.device_per_s is None else [self.device_per_s])
        return min(limits) * self.utilisation

    @property
    def bound(self) -> str:
        """``host`` or ``device``."""
        return "host" if self.device_per_s is None or self.host_per_s <= self.device_per_s else "device"

    @property
    def requests_per_dollar(self) -> float:
        """At that rate, around the clock."""
        return self.per_s * 3600 / self.instance.dollars_per_hour

    @property
    def dollars_per_million(self) -> float:
        """The same the other way round."""
        return 1e6 / self.requests_per_dollar


def rate_of(instance: Instance, load: Load, utilisation: float) -> Rate:
    """
    The most an instance can serve by its CPUs and, where it has them, its NeuronCores.

    >>> load = Load(host_ms=0.5, engine_ms=1.5, calls=0.25, tokens=28, call_ms=0.25, token_ms=0.0026)
    >>> cpu = rate_of(Instance("c", "-", 2, 0, 0.1, "-"), load, 0.5)
    >>> round(cpu.per_s), round(cpu.requests_per_dollar)
    (500, 18000000)
    >>> inf = rate_of(Instance("i", "-", 4, 2, 0.8, "-"), load, 0.5)
    >>> round(inf.host_per_s), round(inf.device_per_s), inf.bound
    (8000, 14782, 'host')
    """
    if instance.neuron_cores == 0:
        return Rate(instance, instance.vcpus * 1e3 / (load.host_ms + load.engine_ms), None, utilisation)
    return Rate(instance, instance.vcpus * 1e3 / load.host_ms, instance.neuron_cores * 1e3 / load.core_ms, utilisation)


def break_even_engine_ms(inferentia: Rate, cpu: Instance, load: Load) -> float:
    """
    Engine CPU time a request above which the Inferentia instance is cheaper a request than ``cpu``.

    From equal cost: price_c / (vcpus_c / (host + engine)) = price_i / rate_i, at the same utilisation.
    """
    unloaded = inferentia.per_s / inferentia.utilisation
    return inferentia.instance.dollars_per_hour / unloaded * cpu.vcpus * 1e3 / cpu.dollars_per_hour - load.host_ms


def read_inputs(file: Path = INPUTS) -> tuple[dict[str, list[Load]], list[Instance], float]:
    """
    For each model a load for every host time, the instances, and the utilisation.

    Raises KeyError or TypeError for a field that is missing or not known.
    """
    data = tomllib.loads(file.read_text(encoding="utf-8"))
    packing, device = data["packing"], data["device"]
    loads = {
        name: [
            Load(
                host_ms=float(host_ms),
                engine_ms=float(model["engine_cpu_ms"]),
                calls=float(packing["calls_per_utterance"]),
                tokens=float(packing["tokens_per_utterance"]),
                call_ms=float(device["call_ms"]),
                token_ms=float(device["token_ms"]),
            )
            for host_ms in data["host"]["cpu_ms"]
        ]
        for name, model in data["models"].items()
    }
    return loads, [Instance(**row) for row in data["instances"]], float(data["utilisation"]["share"])


def measured_host_ms(file: Path = INPUTS) -> float:
    """That one of the host times which was measured; raises ValueError when it is none of them."""
    host = tomllib.loads(file.read_text(encoding="utf-8"))["host"]
    if host["measured_ms"] not in host["cpu_ms"]:
        raise ValueError(f"measured_ms {host['measured_ms']} is none of cpu_ms {host['cpu_ms']}")
    return float(host["measured_ms"])


def tables(file: Path = INPUTS) -> str:
    """One Markdown table a model: requests a second and dollars a million, by host CPU time a request."""
    loads, instances, utilisation = read_inputs(file)
    measured_ms = measured_host_ms(file)
    parts = []
    for name, by_host in loads.items():
        head = [f"{instance.name} (${instance.dollars_per_hour:.4f}/h)" for instance in instances]
        lines = [_row(["host CPU ms", *head]), _row(["---"] * (len(head) + 1))]
        lines += [
            _row([_host(load.host_ms, measured_ms), *(_cell(rate_of(each, load, utilisation)) for each in instances)])
            for load in by_host
        ]
        parts.append(f"### {name}\n\n" + "\n".join(lines) + "\n\n" + _break_even(by_host, instances, utilisation))
    return "\n\n".join(parts) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _host(host_ms: float, measured_ms: float) -> str:
    return f"**{host_ms:.2f}, measured**" if host_ms == measured_ms else f"{host_ms:.2f}"


def _cell(rate: Rate) -> str:
    bound = f", {rate.bound}" if rate.device_per_s is not None else ""
    return f"{rate.per_s:,.0f}/s{bound}, {rate.requests_per_dollar / 1e6:.1f} M/$, ${rate.dollars_per_million:.3f}/M"


def _break_even(by_host: Sequence[Load], instances: Sequence[Instance], utilisation: float) -> str:
    """How slow the CPU engine must be for Inferentia to be the cheaper one, for instances bought alike."""
    lines = []
    for neuron in (instance for instance in instances if instance.neuron_cores):
        for cpu in (one for one in instances if not one.neuron_cores and one.purchase == neuron.purchase):
            edges = ", ".join(
                f"{break_even_engine_ms(rate_of(neuron, load, utilisation), cpu, load):.2f} at {load.host_ms:.2f}"
                for load in by_host
            )
            lines.append(
                f"- {neuron.name} is cheaper than {cpu.name} above this engine CPU time, ms at host ms: {edges} "
                f"(here {by_host[0].engine_ms:.2f})."
            )
    return "\n".join(lines)


def sources(file: Path = INPUTS) -> Mapping[str, Any]:
    """Where every input comes from."""
    data = tomllib.loads(file.read_text(encoding="utf-8"))
    named = {part: values["source"] for part, values in data.items() if isinstance(values, dict) and "source" in values}
    named |= {name: model["source"] for name, model in data["models"].items()}
    return named | {row["name"]: row["price_source"] for row in data["instances"]}


if __name__ == "__main__":
    print(tables(), end="")
