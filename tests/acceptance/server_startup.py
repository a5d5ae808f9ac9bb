"""The time from process start to the first healthy answer, and to the first answer with each model ready."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ondol import load_settings
from tests.acceptance.report import Report, run
from tests.acceptance.server_process import ServerProcess, running_server

__all__ = ["main", "measure"]

# The guide's own figures are 10 to 30 s in development and 60 to 120 s in production. Ours, on a 2-core machine:
LIVE_S = 1.0
READY_S = {"development": 1.0, "testing": 1.0, "production": 20.0}
FIRST_ANSWER_S = 10.0
STOP_S = 5.0


def measure() -> Report:
    """Start the server for the profile of ENVIRONMENT and measure it."""
    environment = load_settings().values.environment
    report = Report(f"server start-up, profile {environment}")
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder)) as server:
        report.add("process start to first 200 on /livez", server.wait_for("/livez"), "s", LIVE_S)
        ready_s = server.wait_for("/readyz", limit_s=120)
        report.add("process start to 200 on /readyz", ready_s, "s", READY_S[environment])
        report.add(
            "memory when ready, nothing asked yet",
            server.memory_mb(),
            "MB",
            2000 if environment == "production" else 60,
        )
        _first_answers(server, report)
        report.add(
            "memory with every model loaded", server.memory_mb(), "MB", 2000 if environment == "production" else 500
        )
        report.add("interrupt to clean exit", server.stop(), "s", STOP_S)
        report.add("exit status", float(server.process.returncode), "", 0, "equal")
    return report


def _first_answers(server: ServerProcess, report: Report) -> None:
    for model in [entry["id"] for entry in server.request("GET", "/v1/models")[1]["data"]]:
        begun_s = server.age_s()
        status, answer = server.request(
            "POST", "/v1/embeddings", {"model": model, "input": "따뜻한 바닥, a warm floor"}
        )
        assert status == 200, answer
        report.add(f"first answer of {model}", server.age_s() - begun_s, "s", FIRST_ANSWER_S)


def main() -> int:
    """Print the report; return the exit status."""
    return run(measure)
