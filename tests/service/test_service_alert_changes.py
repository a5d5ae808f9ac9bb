"""Another file, other targets, a restart: what came from before is taken back, what the program did stays."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from ondol import AlertRule, OptimizationService
from ondol.errors import InvalidSettingError
from ondol.monitor.default_rules import DEFAULT_RULES
from ondol.monitor.notices import Notices
from ondol.settings import Settings, resolve
from ondol.testing import VirtualClock, run_virtual
from tests.service.notices_fakes import FakeNotifier
from tests.service.webhook_double import WebhookDouble, free_port

if TYPE_CHECKING:
    from pathlib import Path

RULE = '[[rules]]\nname = "{name}"\nmetric_name = "orders.waiting"\noperator = ">"\nthreshold = 10\n'
NAMES = {rule.name for rule in DEFAULT_RULES}


def settings(**arguments: Any) -> Settings:
    return resolve(arguments={"environment": "testing", **arguments}).values


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "ondol-alerts.toml"


def write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def rules_of(service: OptimizationService) -> dict[str, AlertRule]:
    return {rule.name: rule for rule in service.monitor.alert_rules()}


def silence_in(clock: VirtualClock, days: int, name: str) -> str:
    ends_at = datetime.fromtimestamp(clock.wall() + 86_400 * days + 0.123457, UTC).isoformat()
    return f'[[silences]]\nmatchers = {{ alertname = "{name}" }}\nends_at = {ends_at}\n'


def told_by(service: OptimizationService) -> set[str]:
    return set(service.get_stats()["monitor"]["alerts"]["notices"])


def test_rules_that_the_file_has_no_more_go_and_what_it_had_changed_comes_back(file: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = OptimizationService(settings(), clock=clock)
        mine = AlertRule("mine", "orders.waiting", 1.0, ">")
        service.monitor.add_alert_rule(mine)
        contents = '[defaults]\ndisable = ["disk_full"]\n' + "".join(
            RULE.format(name=name) for name in ("mine", "memory_high", "new")
        )
        write(file, contents)
        async with service:
            assert rules_of(service).keys() == NAMES - {"disk_full"} | {"mine", "new"}
            assert rules_of(service)["mine"].threshold == rules_of(service)["memory_high"].threshold == 10
        write(file, RULE.format(name="renamed"))
        async with service:
            assert rules_of(service).keys() == NAMES | {"mine", "renamed"}
            assert rules_of(service)["mine"] == mine
        await asyncio.to_thread(file.unlink)
        async with service:
            assert set(service.monitor.alert_rules()) == {*DEFAULT_RULES, mine}

    run_virtual(scenario)


def test_what_the_program_made_of_a_rule_of_the_file_is_not_taken_back(file: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = OptimizationService(settings(), clock=clock)
        names = ("changed", "disk_full", "memory_high")
        write(file, "".join(RULE.format(name=name) for name in names))
        changed = AlertRule("changed", "orders.waiting", 5.0, ">")
        async with service:
            service.monitor.add_alert_rule(changed)
            service.monitor.remove_alert_rule("disk_full")
        write(file, "")
        async with service:
            assert rules_of(service)["changed"] == changed
            assert "disk_full" not in rules_of(service)
            assert rules_of(service)["memory_high"] in DEFAULT_RULES

    run_virtual(scenario)


def test_a_default_rule_comes_back_as_it_is_in_the_environment_of_then(file: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        write(file, '[defaults]\ndisable = ["startup_slow"]\n')
        service = OptimizationService(settings(), clock=clock)
        async with service:
            assert "startup_slow" not in rules_of(service)
        write(file, "")
        await service.start(settings(environment="production"))
        assert rules_of(service)["startup_slow"].threshold == 120
        await service.stop()

    run_virtual(scenario)


def test_an_alert_goes_on_when_its_rule_stays_as_it_was(file: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        write(file, RULE.format(name="orders"))
        service = OptimizationService(settings(), clock=clock)
        for _ in range(2):
            async with service:
                service.monitor.add_metric("orders.waiting", 50)
                service.monitor.tick()
        assert [(event.name, event.state) for event in service.monitor.alert_history()] == [("orders", "fired")]

    run_virtual(scenario)


def test_silences_of_the_file_are_made_once_stay_ended_and_go_with_their_line(file: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = OptimizationService(settings(), clock=clock)
        service.monitor.silence_alerts({"alertname": "by hand"}, 3600.0)
        lines = [silence_in(clock, 3, name) for name in ("a*", "b*", "c*")]

        def names() -> list[str]:
            return [silence.matchers["alertname"] for silence in service.monitor.silences()]

        write(file, "".join(lines))
        for _ in range(5):
            async with service:
                await asyncio.sleep(1.7)
        assert names() == ["by hand", "a*", "b*", "c*"]
        service.monitor.end_silence(service.monitor.silences()[1].id)
        async with service:
            assert names() == ["by hand", "b*", "c*"]
        write(file, lines[0] + lines[1])
        async with service:
            assert names() == ["by hand", "b*"]

    run_virtual(scenario)


def test_too_many_silences_are_an_invalid_setting_and_change_nothing(file: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = OptimizationService(settings(), clock=clock)
        for number in range(199):
            service.monitor.silence_alerts({"alertname": f"x{number}"}, 1e6)
        silences = "".join(silence_in(clock, 3, name) for name in ("a*", "b*"))
        write(file, silences + RULE.format(name="new"))
        with pytest.raises(InvalidSettingError, match="200 silences"):
            await service.start()
        assert not service.is_started
        assert len(service.monitor.silences()) == 199
        assert rules_of(service).keys() == NAMES

    run_virtual(scenario)


@pytest.mark.parametrize("is_file_changed", [False, True])
def test_who_was_told_that_it_fires_is_told_after_a_restart_that_it_is_over(file: Path, is_file_changed: bool) -> None:
    # Another target and another grouping change nothing for the one that stays.
    more = f'[grouping]\nby = ["alertname"]\n[[webhooks]]\nname = "more"\nurl = "http://127.0.0.1:{free_port()}/"\n'

    async def scenario(url: str) -> None:
        service = OptimizationService(settings(alert_webhook_url=url))
        service.monitor.add_alert_rule(AlertRule("mine", "orders.waiting", 1.0, ">"))
        async with service:
            service.monitor.add_metric("orders.waiting", 5.0)
            service.monitor.tick()
        if is_file_changed:
            write(file, more)
        async with service:
            assert told_by(service) == ({"environment", "more"} if is_file_changed else {"environment"})
            service.monitor.add_metric("orders.waiting", 0.0)
            service.monitor.tick()

    with WebhookDouble() as double:
        asyncio.run(scenario(double.url()))
    assert [json.loads(received.body)["status"] for received in double.received] == ["firing", "resolved"]


def test_a_running_service_that_is_given_other_settings_watches_and_tells_as_they_say(file: Path) -> None:
    (file.parent / "a.toml").write_text(RULE.format(name="orders"), encoding="utf-8")

    async def scenario(first: str, second: str) -> None:
        service = OptimizationService(settings(alert_webhook_url=first))
        async with service:
            given = settings(alerts_file="a.toml", alert_webhook_url=second)
            await service.start(given)
            service.monitor.add_metric("orders.waiting", 50)
            service.monitor.tick()
            await service.start(given)
            assert rules_of(service).keys() == NAMES | {"orders"}
            await service.start(settings(alerts_file="a.toml"))  # tells what it has to tell, then nobody is told
            assert told_by(service) == set()
            await service.start(settings())
            assert rules_of(service).keys() == NAMES
        assert {task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("ondol")} == set()

    with WebhookDouble() as first, WebhookDouble() as second:
        asyncio.run(scenario(first.url(), second.url()))
    assert (len(first.received), len(second.received)) == (0, 1)


def test_a_running_service_goes_on_as_it_was_when_other_settings_are_not_valid(file: Path) -> None:
    (file.parent / "a.toml").write_text("[[rules]]\n", encoding="utf-8")

    async def scenario(clock: VirtualClock) -> None:
        before = settings()
        async with OptimizationService(before, clock=clock) as service:
            with pytest.raises(InvalidSettingError, match=r"a\.toml"):
                await service.start(settings(alerts_file="a.toml", cache_memory_limit_mb=5))
            assert service.settings == before
            assert service.cache.max_bytes == before.cache_memory_limit_bytes
            assert service.is_started

    run_virtual(scenario)


def test_a_check_changes_nothing(file: Path) -> None:
    write(file, RULE.format(name="orders"))
    service = OptimizationService(settings(alert_webhook_url="http://127.0.0.1:9/"))
    service.check()
    assert tuple(service.monitor.alert_rules()) == DEFAULT_RULES
    assert told_by(service) == set()


def test_notices_that_the_program_gave_stay(file: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        service = OptimizationService(settings(alert_webhook_url="http://127.0.0.1:9/"), clock=clock)
        service.monitor.send_notices_to(Notices([FakeNotifier(clock, "mine")], clock=clock))
        for _ in range(2):
            async with service:
                assert told_by(service) == {"mine"}

    run_virtual(scenario)
