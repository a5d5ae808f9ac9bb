"""Spans of the cache and of the pool: who is whose child, when each began and ended, and nothing while it is off."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from ondol.cache import Cache
from ondol.models import ModelPool
from ondol.testing import FakeClock, run_virtual
from ondol.tracing import NO_SPAN, RemoteParent, SpanRelay
from tests.service.models_fakes import Fleet
from tests.service.otlp_double import Told, attributes

if TYPE_CHECKING:
    from ondol.testing import VirtualClock
    from ondol.tracing import Attributes, Span


class Counting:
    """A sink that counts what it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def span(self, _name: str, _attributes: Attributes, /) -> Span:
        self.calls += 1
        return NO_SPAN

    def serve(self, _name: str, _attributes: Attributes, _parent: RemoteParent | None, /) -> Span:
        self.calls += 1
        return NO_SPAN

    def record(self, _name: str, _start_s: float, _end_s: float, _attributes: Attributes, _error: str = "", /) -> None:
        self.calls += 1

    def event(self, _name: str, _attributes: Attributes, /) -> None:
        self.calls += 1


async def use_everything(clock: VirtualClock, relay: SpanRelay | None) -> None:
    """Compute, hit, lease a cold and a warm model."""
    cache, fleet = Cache(clock=clock, spans=relay), Fleet()
    pool = ModelPool(clock=clock, spans=relay)
    pool.register(fleet.spec("m"))

    async def compute() -> str:
        async with pool.lease("m"):
            return "value"

    async with pool:
        assert await cache.get_or_compute("page", 1, compute=compute) == "value"
        assert await cache.get_or_compute("page", 1, compute=compute) == "value"
        assert cache.get_or_compute_blocking("page", 2, compute=lambda: "other") == "other"
        assert cache.get_or_compute_blocking("page", 2, compute=lambda: "other") == "other"
        async with pool.lease("m"):
            pass


def test_a_relay_passes_on_only_while_it_is_connected() -> None:
    relay, sink = SpanRelay(), Counting()

    async def scenario(clock: VirtualClock) -> None:
        await use_everything(clock, None)
        await use_everything(clock, relay)
        assert not relay.is_on
        assert sink.calls == 0
        relay.connect(sink)
        await use_everything(clock, relay)
        assert sink.calls == 9  # 2 asked, 2 computed, 2 hits, 1 cold lease, 1 load, 1 warm lease
        relay.connect(None)
        await use_everything(clock, relay)
        assert sink.calls == 9

    run_virtual(scenario)


def test_a_hit_makes_nothing_for_tracing_while_it_is_off() -> None:
    relay = SpanRelay()
    cache = Cache(clock=FakeClock(), spans=relay)
    cache.set_nowait("page", "value", 1)
    made: list[str] = []
    relay.event = lambda name, _attributes: made.append(name)
    tracemalloc.start()
    try:
        for _ in range(100):
            cache.get_or_compute_blocking("page", 1, compute=str)
            with relay.span("x", {}) if relay.is_on else NO_SPAN as span:
                span.set("a", 1)
        taken = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/ondol/tracing.py")])
    finally:
        tracemalloc.stop()
    assert not taken.traces
    assert not made


def test_what_still_holds_a_span_of_a_relay_that_was_disconnected_does_no_harm() -> None:
    relay = SpanRelay()
    assert relay.span("a", {}) is NO_SPAN
    assert relay.serve("a", {}, None) is NO_SPAN
    relay.record("a", 0.0, 1.0, {})
    relay.event("a", {})
    with NO_SPAN as span:
        span.set("a", 1)
        span.rename("b")
        span.fail("c")
        span.link(span)
        span.end()
    assert (span.trace_id, span.span_id, span.is_recording) == ("", "", False)


def test_a_request_through_cache_lease_and_load_is_one_tree_with_the_right_times() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told, fleet = Told(clock), Fleet(load_seconds=2.0)
        cache, pool = Cache(clock=clock, spans=told.relay), ModelPool(clock=clock, spans=told.relay)
        pool.register(fleet.spec("m", size_bytes=1000))

        async def compute() -> str:
            await asyncio.sleep(1)
            async with pool.lease("m"):
                await asyncio.sleep(4)
                return "value"

        async with pool:
            with told.relay.serve("GET", {}, None):
                assert await cache.get_or_compute("page", 7, compute=compute) == "value"
        load = told.one("models.load")
        assert told.path(load) == ["GET", "cache.get_or_compute", "cache.compute", "models.lease", "models.load"]
        assert told.times(told.one("cache.get_or_compute")) == (0.0, 7.0)
        assert told.times(told.one("cache.compute")) == (0.0, 7.0)
        assert told.times(told.one("models.lease")) == (1.0, 3.0)
        assert told.times(load) == (1.0, 3.0)
        assert attributes(told.one("cache.get_or_compute")) == {"cache.name": "page", "cache.result": "miss"}
        lease = attributes(told.one("models.lease"))
        assert (lease["model.name"], lease["lease.cold"]) == ("m", True)
        assert lease["lease.wait_seconds"] == pytest.approx(2.0)
        seen = attributes(load)
        assert seen.pop("load.seconds") == pytest.approx(2.0)
        assert seen == {"model.name": "m", "model.bytes": 1000, "load.joined": False}

    run_virtual(scenario)


def test_hits_and_leases_of_ready_models_are_events_of_the_span_around_them() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told, fleet = Told(clock), Fleet()
        cache, pool = Cache(clock=clock, spans=told.relay), ModelPool(clock=clock, spans=told.relay)
        pool.register(fleet.spec("m"))
        cache.set_nowait("page", "value", 7)
        async with pool:
            await pool.load("m")
            with told.relay.serve("GET", {}, None):
                await cache.get_or_compute("page", 7, compute=str)
                async with pool.lease("m"):
                    pass
        (root,) = told.all()
        found = [(event.name, dict(event.attributes or {})) for event in root.events]
        assert found == [
            ("cache.get_or_compute", {"cache.name": "page", "cache.result": "hit"}),
            ("models.lease", {"model.name": "m", "lease.cold": False, "lease.wait_seconds": 0.0}),
        ]

    run_virtual(scenario)


def test_who_waits_for_the_computation_of_another_request_sees_that_in_its_own_trace() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told = Told(clock)
        cache = Cache(clock=clock, spans=told.relay)

        async def compute() -> int:
            await asyncio.sleep(1)
            return 1

        async def request(name: str) -> None:
            with told.relay.serve(name, {}, None):
                await cache.get_or_compute("page", compute=compute)

        await asyncio.gather(request("first"), request("second"))
        asked = told.named("cache.get_or_compute")
        assert {told.path(span)[0]: attributes(span)["cache.result"] for span in asked} == {
            "first": "miss",
            "second": "shared",
        }
        assert told.path(told.one("cache.compute"))[0] == "first"
        assert told.one("first").context.trace_id != told.one("second").context.trace_id

    run_virtual(scenario)


def test_an_error_marks_every_span_it_passes() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told = Told(clock)
        cache = Cache(clock=clock, spans=told.relay)

        async def compute() -> None:
            raise KeyError("nothing there")

        with pytest.raises(KeyError):
            await cache.get_or_compute("page", compute=compute)
        for name in ("cache.get_or_compute", "cache.compute"):
            span = told.one(name)
            assert span.status.status_code is StatusCode.ERROR
            assert span.status.description == "'nothing there'"
            assert attributes(span)["error.type"] == "KeyError"

    run_virtual(scenario)


def test_somebody_who_leaves_is_no_error() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told = Told(clock)
        cache = Cache(clock=clock, spans=told.relay)

        async def compute() -> None:
            await asyncio.sleep(100)

        request = asyncio.create_task(cache.get_or_compute("page", compute=compute))
        await asyncio.sleep(3)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await asyncio.sleep(1)
        for name in ("cache.get_or_compute", "cache.compute"):
            span = told.one(name)
            assert told.times(span) == (0.0, 3.0)
            assert span.status.status_code is StatusCode.UNSET
            assert attributes(span)["ondol.cancelled"] is True

    run_virtual(scenario)


def test_a_computation_in_a_thread_is_a_child_of_what_asked_for_it() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told = Told(clock)
        cache = Cache(clock=clock, spans=told.relay)
        with told.relay.serve("GET", {}, None):
            await asyncio.to_thread(cache.get_or_compute_blocking, "page", compute=lambda: 1)
        assert told.path(told.one("cache.compute")) == ["GET", "cache.get_or_compute", "cache.compute"]

    run_virtual(scenario)


def test_spans_of_the_host_application_are_parents_and_children_of_ours() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told = Told(clock)
        cache = Cache(clock=clock, spans=told.relay)
        host = told.provider.get_tracer("host")

        async def compute() -> int:
            with host.start_as_current_span("query"):
                return 1

        with host.start_as_current_span("handler"), told.relay.serve("GET", {}, None):
            await cache.get_or_compute("page", compute=compute)
        assert told.path(told.one("query")) == ["handler", "GET", "cache.get_or_compute", "cache.compute", "query"]
        assert told.one("GET").kind is trace.SpanKind.INTERNAL

    run_virtual(scenario)


def test_a_trace_that_is_not_sampled_costs_no_spans() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told = Told(clock)
        cache = Cache(clock=clock, spans=told.relay)
        for flags in (0, 1):
            with told.relay.serve("GET", {}, RemoteParent("ab" * 16, "cd" * 8, flags)) as span:
                assert span.is_recording is bool(flags)
                assert span.trace_id == "ab" * 16
                await cache.get_or_compute("page", flags, compute=lambda: 1)
            assert len(told.all()) == 3 * flags
        root = told.one("GET")
        assert root.parent is not None
        assert (root.parent.span_id, root.parent.is_remote) == (int("cd" * 8, 16), True)

    run_virtual(scenario)


def test_a_provider_that_fails_costs_the_span_only(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(clock: VirtualClock) -> None:
        told = Told(clock)

        def broken(*_args: Any, **_kwargs: Any) -> Any:
            raise RuntimeError("the host's processor is broken")

        told.sink._tracer.start_span = broken  # type: ignore[method-assign]
        cache = Cache(clock=clock, spans=told.relay)
        assert await cache.get_or_compute("page", compute=lambda: 1) == 1
        told.relay.record("models.load", 0.0, 1.0, {})
        assert told.sink.failures == 3

    run_virtual(scenario)
    assert [record.message for record in caplog.records if "OpenTelemetry failed" in record.message] == [
        "OpenTelemetry failed on a span; later failures are only counted"
    ]
