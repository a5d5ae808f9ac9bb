"""What the service does with the settings of monitoring: the file of alerts, notices, start-up time, OpenTelemetry."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from ondol import AlertRule, ModelSpec, OptimizationService
from ondol.errors import ConfigurationError, InvalidSettingError, MissingExtraError
from ondol.monitor.default_rules import DEFAULT_RULES
from ondol.monitor.webhook_body import verify_signature
from ondol.settings import Settings, resolve
from ondol.testing import VirtualClock, run_virtual
from tests.service.otlp_double import Collector
from tests.service.webhook_double import WebhookDouble

if TYPE_CHECKING:
    from pathlib import Path

FILE = """
[defaults]
disable = ["cache_hit_rate_low"]

[grouping]
wait_seconds = 0

[[rules]]
name = "too_many_orders"
metric_name = "orders.waiting"
operator = ">"
threshold = 10
labels = {{ team = "주문" }}
message = "더 많은 일꾼을 두세요"

[[webhooks]]
url = "http://127.0.0.1:{port}/hook"

[[silences]]
matchers = {{ team = "nobody" }}
ends_at = {tomorrow}
"""


def write_file(folder: Path, port: int, wall_s: float) -> None:
    tomorrow = datetime.fromtimestamp(wall_s + 86_400, UTC).isoformat()
    (folder / "ondol-alerts.toml").write_text(FILE.format(port=port, tomorrow=tomorrow), encoding="utf-8")


def settings(**arguments: Any) -> Settings:
    return resolve(arguments={"environment": "testing", **arguments}).values


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_rules_of_the_file_fire_and_its_webhooks_are_told(folder: Path) -> None:
    with WebhookDouble() as double:
        write_file(folder, double.port, time.time())

        async def scenario() -> None:
            service = OptimizationService(settings())
            async with service:
                names = {rule.name for rule in service.monitor.alert_rules()}
                assert "too_many_orders" in names
                assert "cache_hit_rate_low" not in names
                service.monitor.add_metric("orders.waiting", 50)
                service.monitor.tick()
                assert await asyncio.to_thread(double.arrived.acquire, timeout=30)
                service.monitor.add_metric("orders.waiting", 3)
                service.monitor.tick()  # told when the stop ends the wait for others of the group
                notices = service.get_stats()["monitor"]["alerts"]["notices"]
                assert set(notices) == {"webhook"}

        asyncio.run(scenario())
    bodies = [json.loads(received.body) for received in double.received]
    assert [body["status"] for body in bodies] == ["firing", "resolved"]
    assert bodies[0]["alerts"][0]["labels"]["team"] == "주문"
    assert bodies[0]["alerts"][0]["annotations"]["description"] == "더 많은 일꾼을 두세요"


def test_the_webhook_of_the_environment_is_signed(folder: Path) -> None:
    with WebhookDouble() as double:
        given = settings(alert_webhook_url=double.url(), alert_webhook_secret="geheim")

        async def scenario() -> None:
            service = OptimizationService(given)
            async with service:
                service.monitor.add_alert_rule(AlertRule("now", "a", 0, ">"))
                service.monitor.add_metric("a", 1)
                service.monitor.tick()
            # The stop delivers what waits for its group.

        asyncio.run(scenario())
    (received,) = double.received
    header = received.headers["X-Ondol-Signature"]
    sent_at = float(header.partition(",")[0].removeprefix("t="))
    assert verify_signature("geheim", received.body, header, sent_at)


def test_a_file_with_mistakes_keeps_the_service_from_starting_and_all_are_told(folder: Path) -> None:
    wrong = '[[rules]]\nname = "a"\nmetric_name = "b"\noperator = "=>"\nthreshold = "x"\n'
    (folder / "ondol-alerts.toml").write_text(wrong, encoding="utf-8")

    async def scenario() -> None:
        service = OptimizationService(settings())
        with pytest.raises(InvalidSettingError) as caught:
            await service.start()
        assert not service.is_started
        assert service.get_stats()["monitor"]["uptime_seconds"] == 0.0
        assert "ondol-alerts.toml:4" in str(caught.value)
        assert "ondol-alerts.toml:5" in str(caught.value)
        with pytest.raises(InvalidSettingError):
            service.check()
        (folder / "ondol-alerts.toml").write_text("", encoding="utf-8")
        await service.start()
        await service.stop()

    asyncio.run(scenario())


def test_a_file_that_is_named_must_be_there_and_an_address_must_be_one(folder: Path) -> None:
    with pytest.raises(InvalidSettingError, match=r"rules\.toml"):
        OptimizationService(settings(alerts_file="rules.toml")).check()
    with pytest.raises(InvalidSettingError, match="http") as caught:
        OptimizationService(settings(alert_webhook_url="ftp://bot:geheim@example.org/x")).check()
    assert "geheim" not in str(caught.value)


def test_starting_again_plans_no_silence_twice_and_keeps_what_the_program_changed(folder: Path) -> None:
    mine = AlertRule("memory_high", "system.memory_percent", 50, ">")

    async def scenario(clock: VirtualClock) -> None:
        write_file(folder, 9, clock.wall())
        service = OptimizationService(settings(environment="production"), clock=clock)
        service.monitor.add_alert_rule(mine)
        service.monitor.remove_alert_rule("disk_full")
        for _ in range(2):
            async with service:
                rules = {rule.name: rule for rule in service.monitor.alert_rules()}
                assert rules["memory_high"] == mine
                assert "disk_full" not in rules
                assert rules["startup_slow"].threshold == 120
                assert len(service.monitor.silences()) == 1
        await service.start(settings(environment="development"))
        assert {rule.name: rule for rule in service.monitor.alert_rules()}["startup_slow"].threshold == 30
        await service.stop()

    run_virtual(scenario)


def test_without_a_file_the_default_rules_are_watched_and_nobody_is_told(folder: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        async with OptimizationService(settings(), clock=clock) as service:
            assert tuple(service.monitor.alert_rules()) == DEFAULT_RULES
            assert service.get_stats()["monitor"]["alerts"]["notices"] == {}

    run_virtual(scenario)


def test_the_time_to_get_ready_is_recorded_once_each_start(folder: Path) -> None:
    async def load() -> str:
        await asyncio.sleep(40.0)
        return "model"

    async def scenario(clock: VirtualClock) -> None:
        service = OptimizationService(settings(environment="production", auto_tuning_enabled=False), clock=clock)
        service.models.register(ModelSpec(name="m", load=load))
        for number in (1, 2):
            async with service:
                assert not service.readiness()["ready"]
                await asyncio.sleep(60.0)
                assert service.readiness()["ready"]
                await service.models.unload("m")
                await service.models.load("m")
                figures = service.monitor.get_stats()["metrics"]["service.startup_seconds"]
                assert (figures["count"], figures["last"]) == (number, pytest.approx(40.0, abs=0.1))

    run_virtual(scenario)


def test_what_has_nothing_to_wait_for_is_ready_at_once(folder: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        async with OptimizationService(settings(), clock=clock) as service:
            assert service.monitor.get_stats()["metrics"]["service.startup_seconds"]["count"] == 1

    run_virtual(scenario)


def test_opentelemetry_is_told_of_leases_and_loads_where_it_is_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[bool] = []
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)

        async def scenario() -> None:
            service = OptimizationService(settings(otel_enabled=True))
            service.models.register(ModelSpec(name="m", load=lambda: "model"))
            async with service:
                states.append(service.spans.is_on)
                async with service.models.lease("m"):
                    pass
            states.append(service.spans.is_on)
            assert service.get_stats()["otel"]["spans"]["failures"] == 0

        asyncio.run(scenario())
    assert states == [True, False]
    names = {
        span.name for sent in collector.traces for each in sent.resource_spans for part in each.scope_spans
        for span in part.spans
    }  # fmt: skip
    assert {"models.lease", "models.load"} <= names
    metrics = {
        metric.name for sent in collector.metrics for each in sent.resource_metrics for part in each.scope_metrics
        for metric in part.metrics
    }  # fmt: skip
    assert "ondol.models.load_time" in metrics


def test_opentelemetry_that_is_not_installed_is_said_before_the_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ondol.monitor.otel._is_installed", lambda module: False)
    service = OptimizationService(settings(otel_enabled=True))
    with pytest.raises(MissingExtraError, match=r"ondol\[otel\]"):
        service.check()

    async def scenario(clock: VirtualClock) -> None:
        with pytest.raises(MissingExtraError):
            await service.start()
        assert not service.is_started

    run_virtual(scenario)


def test_a_part_that_failed_to_start_is_stopped_too_and_its_own_error_is_raised(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(clock: VirtualClock) -> None:
        stopped: list[str] = []

        async def broken_start() -> None:
            raise OSError("no threads left")

        async def broken_stop() -> None:
            stopped.append("tuner")
            raise RuntimeError("never begun")

        service = OptimizationService(settings(), clock=clock)
        monkeypatch.setattr(service.tuner, "start", broken_start)
        monkeypatch.setattr(service.tuner, "stop", broken_stop)
        with pytest.raises(OSError, match="no threads left"):
            await service.start()
        assert stopped == ["tuner"]
        assert not service.is_started

    run_virtual(scenario)


def otel_threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if "otel" in thread.name.lower())


def test_loops_that_are_closed_without_a_stop_leave_one_export_that_the_next_start_replaces(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        service = OptimizationService(settings(otel_enabled=True))

        async def use() -> None:
            await service.start()
            assert service.spans.is_on

        counts = []
        for _ in range(3):
            asyncio.run(use())
            counts.append(len([name for name in otel_threads() if not name.startswith("ondol-otel_")]))
        asyncio.run(service.stop())
        assert counts == [2, 2, 2]
        assert [name for name in otel_threads() if not name.startswith("ondol-otel_")] == []


def is_exporting(service: OptimizationService) -> bool:
    return service.spans.is_on


def test_opentelemetry_begins_and_ends_with_other_settings_of_a_running_service(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)

        async def scenario() -> None:
            async with OptimizationService(settings()) as service:
                assert "otel" not in service.get_stats()
                await service.start(settings(otel_enabled=True))
                assert is_exporting(service)
                assert "otel" in service.get_stats()
                await service.start(settings(otel_enabled=True, cache_memory_limit_mb=5))
                assert is_exporting(service)
                await service.start(settings())
                assert not is_exporting(service)
                assert "otel" not in service.get_stats()
                monkeypatch.setenv("OTEL_TRACES_EXPORTER", "jaeger")
                with pytest.raises(ConfigurationError, match="jaeger"):
                    await service.start(settings(otel_enabled=True))
                assert service.settings == settings()

        asyncio.run(scenario())
