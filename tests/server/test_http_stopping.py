"""A server whose receivers are down stops in order, within its time."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from ondol.monitor import notices, otel
from ondol.server import process
from ondol.settings import resolve
from tests.acceptance.server_process import running_server
from tests.service.webhook_double import free_port

if TYPE_CHECKING:
    from pathlib import Path


def test_the_server_waits_as_long_as_its_parts_do() -> None:
    assert process.NOTICES_GRACE_S >= notices.GRACE_S
    assert process.EXPORT_GRACE_S >= otel.FLUSH_S + otel._GRACE_S


@pytest.mark.parametrize(("told", "longer_s"), [({}, 0.0), ({"otel_enabled": True}, 4.0)])
def test_it_waits_longer_where_others_are_told(
    told: dict[str, bool], longer_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = resolve(arguments={"environment": "testing", **told}).values
    assert process._stop_margin_s(given) == pytest.approx(process._STOP_MARGIN_S + longer_s)


def test_a_server_whose_receivers_are_down_stops_in_order_and_says_what_was_not_told(tmp_path: Path) -> None:
    rules = tmp_path / "alerts.toml"
    rules.write_text(
        f"""
        [[rules]]
        name = "always"
        metric_name = "process.threads"
        operator = ">"
        threshold = 0
        [[webhooks]]
        url = "http://127.0.0.1:{free_port()}/hook"
        """,
        encoding="utf-8",
    )
    told = {
        "ONDOL_ALERTS_FILE": str(rules),
        "ONDOL_OTEL": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
    }
    with running_server(tmp_path, ENVIRONMENT="testing", **told) as server:
        deadline_s = time.monotonic() + 60
        while not any("alert always fired" in line for line in server.output):
            assert time.monotonic() < deadline_s, "".join(server.output)
            threading.Event().wait(0.02)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=60) == 0
    log = (tmp_path / "logs" / "application.log").read_text(encoding="utf-8")
    assert "service stopped" in log
    assert "not delivered" in log
