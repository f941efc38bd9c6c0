"""/metrics: Prometheus text under vLLM's names with the prefix ``foundry:``, in a registry of the app's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

if TYPE_CHECKING:
    from foundry.generate import Usage
    from foundry.server.engine import Engine

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """Counters of what has been, and gauges that look at the engines when they are asked."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._engines: list[Engine] = []
        label = ("model_name",)

        def counter(name: str, about: str, labels: tuple[str, ...] = label) -> Counter:
            return Counter(f"foundry:{name}", about, labels, registry=self.registry)

        def histogram(name: str, about: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(f"foundry:{name}", about, label, buckets=buckets, registry=self.registry)

        self._prompt = counter("prompt_tokens", "Tokens of prompts.")
        self._new = counter("generation_tokens", "Tokens of answers.")
        self._queries = counter("prefix_cache_queries", "Tokens of prompts that were looked up in the prefix cache.")
        self._hits = counter("prefix_cache_hits", "Of those, the ones that were found.")
        self._ended = counter("request_success", "Answers that ended.", ("model_name", "finished_reason"))
        self._first = histogram("time_to_first_token_seconds", "From the request to its first token.")
        self._each = histogram("time_per_output_token_seconds", "Between an answer's tokens.", _TOKEN_SECONDS)
        self._whole = histogram("e2e_request_latency_seconds", "From the request to the end of its answer.")
        self._queued = histogram("request_queue_time_seconds", "In the queue.")
        self.registry.register(self)

    def watch(self, engine: Engine) -> None:
        self._engines.append(engine)
        for one in (self._prompt, self._new, self._queries, self._hits):
            one.labels(engine.name)

    def forget(self, engine: Engine) -> None:
        self._engines.remove(engine)

    def admitted(self, engine: Engine, seconds: float) -> None:
        self._queued.labels(engine.name).observe(seconds)

    def embedded(self, engine: Engine, tokens: int) -> None:
        self._prompt.labels(engine.name).inc(tokens)

    def first_token(self, engine: Engine, seconds: float) -> None:
        self._first.labels(engine.name).observe(seconds)

    def next_token(self, engine: Engine, seconds: float) -> None:
        self._each.labels(engine.name).observe(seconds)

    def ended(self, engine: Engine, reason: str, usage: Usage, seconds: float, counts_prompt: bool = True) -> None:
        """Of an answer; ``counts_prompt`` for the first of several to one prompt."""
        name = engine.name
        self._ended.labels(name, reason).inc()
        self._new.labels(name).inc(usage.completion_tokens)
        self._whole.labels(name).observe(seconds)
        if counts_prompt:
            self._prompt.labels(name).inc(usage.prompt_tokens)
            self._queries.labels(name).inc(usage.prompt_tokens)
            self._hits.labels(name).inc(usage.cached_tokens)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Called by the registry."""

        def gauge(name: str, about: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"foundry:{name}", about, labels=["model_name"])

        running = gauge("num_requests_running", "Answers that run.")
        waiting = gauge("num_requests_waiting", "Requests in the queue.")
        parked = gauge("num_requests_parked", "Answers that wait for memory to go on.")
        usage = gauge("kv_cache_usage_perc", "K/V that sessions hold or were promised, of what there can be: 1 is all.")
        cache = gauge("prefix_cache_bytes", "Pages of the prefix cache.")
        held = gauge("memory_bytes", "All that the model holds.")
        limit = gauge("memory_limit_bytes", "What it may hold.")
        for engine in self._engines:
            memory = engine.model.memory()
            fixed = memory["weights_mapped"] + memory["weights_private"] + memory["workspace"] + memory["estimated"]
            room = memory["limit"] - fixed
            label = [engine.name]
            running.add_metric(label, engine.admission.running)
            waiting.add_metric(label, engine.admission.waiting)
            parked.add_metric(label, engine.parking.parked)
            usage.add_metric(label, memory["promised"] / room if room > 0 else 0.0)
            cache.add_metric(label, memory["prefix_cache"])
            held.add_metric(label, memory["total"] + memory["estimated"])
            limit.add_metric(label, memory["limit"])
        yield from (running, waiting, parked, usage, cache, held, limit)

    def text(self) -> bytes:
        return generate_latest(self.registry)
