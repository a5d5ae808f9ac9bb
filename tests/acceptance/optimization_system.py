"""The whole system under a realistic load: start-up, memory, hit rate, answer times, clean end.

The load: few texts are asked for again and again, most hardly ever (Zipf's law with exponent 1.1, as web and search
requests are found to follow: Breslau et al., INFOCOM 1999), half Korean, over embeddings, pair scores and searches.
"""

from __future__ import annotations

import http.client
import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ondol import load_settings
from tests.acceptance.report import Report, run
from tests.acceptance.server_process import ServerProcess, exchange, running_server

__all__ = ["main", "measure"]

REQUESTS = 3000
TEXTS = 400
WORKERS = 4
SKILLS = [
    "Python 백엔드 개발",
    "데이터 분석",
    "간호",
    "기계 설계",
    "회계",
    "translation",
    "logistics",
    "cloud operations",
]
TRAITS = ["5년 경력", "신입", "팀장 경험", "remote work", "night shifts", "자격증 보유", "two languages", "현장 경험"]
MEMORY_MB = {"development": 500, "testing": 500, "production": 2000}
READY_S = {"development": 1.0, "testing": 1.0, "production": 20.0}


@dataclass(slots=True)
class Timings:
    """Answer times in seconds, and what went wrong."""

    hits_s: list[float] = field(default_factory=list)
    misses_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def texts() -> list[str]:
    """Return the texts of the load, no two alike."""
    return [
        f"{SKILLS[i % len(SKILLS)]}, {TRAITS[i // len(SKILLS) % len(TRAITS)]}: 지원자 {i} / applicant {i}"
        for i in range(TEXTS)
    ]


def workload(seed: int = 20) -> list[int]:
    """Return which text each request asks for."""
    weights = [1 / (rank + 1) ** 1.1 for rank in range(TEXTS)]
    return random.Random(seed).choices(range(TEXTS), weights=weights, k=REQUESTS)


def percentile(values: list[float], share: float) -> float:
    """Return the value below which ``share`` of ``values`` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def measure() -> Report:
    """Run the load against the real server for the profile of ENVIRONMENT."""
    environment = load_settings().values.environment
    report = Report(f"the whole system, profile {environment}, {REQUESTS} requests over {TEXTS} texts")
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder)) as server:
        report.add("process start to first 200 on /livez", server.wait_for("/livez"), "s", 1.0)
        report.add(
            "process start to 200 on /readyz", server.wait_for("/readyz", limit_s=120), "s", READY_S[environment]
        )
        _store_documents(server)
        timings = _drive(server)
        stats = server.request("GET", "/v1/stats")[1]
        report.add("requests that failed", len(timings.failures), "", 0, "equal")
        hit_rate = float(stats["cache"]["names"]["embedding"]["hit_rate"].rstrip("%"))
        report.add("hit rate of embeddings", hit_rate, "%", 80, "higher")
        for name, values, limit_ms in (("hit", timings.hits_s, 100), ("miss", timings.misses_s, 1000)):
            report.add(f"answer on a {name}, median", percentile(values, 0.5) * 1e3, "ms", limit_ms)
            report.add(f"answer on a {name}, p99", percentile(values, 0.99) * 1e3, "ms", limit_ms)
        report.add("memory after the load", server.memory_mb(), "MB", MEMORY_MB[environment])
        cache = stats["cache"]
        report.add("cache bytes over its bound", max(0, cache["used_bytes"] - cache["max_bytes"]), "B", 0, "equal")
        health = stats["system_health"]
        report.add("memory_percent is a percentage", health["memory_percent"], "%", 100)
        report.add("interrupt to clean exit", server.stop(), "s", 5.0)
        report.add("exit status", float(server.process.returncode), "", 0, "equal")
    return report


def _store_documents(server: ServerProcess) -> None:
    documents = [{"id": f"doc-{i}", "text": text} for i, text in enumerate(texts()[:40])]
    status, answer = server.request("POST", "/v1/documents", {"documents": documents})
    assert status == 201, answer


def _drive(server: ServerProcess) -> Timings:
    """Send the load over a few connections at once; a hit is a request whose texts had all been answered before it."""
    timings = Timings()
    known = texts()
    order = workload()
    answered: set[int] = set()

    def work(worker: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        for number in range(worker, REQUESTS, WORKERS):
            asked = {order[number], order[number - 1]} if _is_pair(number) else {order[number]}
            path, body = _request(number, known[order[number]], known[order[number - 1]])
            is_hit = asked <= answered
            begun_s = time.perf_counter()
            status, answer = exchange(connection, "POST", path, body)
            took_s = time.perf_counter() - begun_s
            if status != 200:
                timings.failures.append(f"{path} {status}: {answer}")
            (timings.hits_s if is_hit else timings.misses_s).append(took_s)
            answered.update(asked)
        connection.close()

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(work, range(WORKERS)))
    return timings


def _is_pair(number: int) -> bool:
    return 6 <= number % 10 < 9


def _request(number: int, text: str, other: str) -> tuple[str, dict[str, object]]:
    if number % 10 < 6:
        return "/v1/embeddings", {"input": text}
    if _is_pair(number):
        return "/v1/similarity", {"text_a": text, "text_b": other}
    return "/v1/search", {"query": text, "limit": 5}


def main() -> int:
    """Print the report; return the exit status."""
    return run(measure)
