from __future__ import annotations

import enum
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from ondol.monitor.log_lines import LogLine, captured_fields, console_line, json_line


def line(message: str = "loaded", fields: dict[Any, Any] | None = None, exc: str = "", level: str = "INFO") -> LogLine:
    return LogLine(1_750_000_000.1234, level, "ondol.cache", message, fields or {}, exc)


def parsed(given: LogLine) -> dict[str, Any]:
    raw = json_line(given)
    assert raw.endswith(b"\n")
    assert raw.count(b"\n") == 1
    content = json.loads(raw)
    assert isinstance(content, dict)
    return content


def test_a_line_has_its_keys_and_time_in_utc() -> None:
    assert parsed(line(fields={"model": "m", "bytes": 5})) == {
        "ts": "2025-06-15T15:06:40.123Z",
        "level": "INFO",
        "logger": "ondol.cache",
        "message": "loaded",
        "model": "m",
        "bytes": 5,
    }


def test_korean_is_written_as_it_is() -> None:
    raw = json_line(line("모델을 불러왔습니다", {"이름": "한국어"}))
    assert "모델을 불러왔습니다".encode() in raw
    assert '"이름": "한국어"'.encode() in raw


def test_a_field_never_hides_a_key_of_the_line() -> None:
    content = parsed(line(fields={"message": "mine", "ts": 1}))
    assert content["message"] == "loaded"
    assert (content["message_"], content["ts_"]) == ("mine", 1)


def test_a_traceback_and_line_breaks_stay_in_one_line() -> None:
    content = parsed(line("a\nb", exc="Traceback\n  File"))
    assert content["message"] == "a\nb"
    assert content["exc"] == "Traceback\n  File"


def circle() -> dict[str, Any]:
    fields: dict[str, Any] = {}
    fields["self"] = fields
    return fields


@pytest.mark.parametrize(
    "fields",
    [
        {"x": float("nan")},
        {"x": float("inf")},
        {(1, 2): "tuple"},
        {"x": object()},
        {"x": {1, 2}},
        {"x": b"bytes"},
        circle(),
    ],
)
def test_what_json_does_not_know_is_written_as_text(fields: dict[Any, Any]) -> None:
    assert parsed(line(fields=fields))["message"] == "loaded"


def test_one_field_that_json_does_not_know_leaves_the_others_as_they_are() -> None:
    content = parsed(line(fields={"nan": float("nan"), "x": 0.5, "n": 3, "is": True, "none": None, "big": 10**5000}))
    assert {name: content[name] for name in ("nan", "x", "n", "is", "none")} == {
        "nan": "nan",
        "x": 0.5,
        "n": 3,
        "is": True,
        "none": None,
    }
    assert content["big"].startswith("0x")


class Colour(enum.IntEnum):
    RED = 1


class Changing:
    text = "before"

    def __str__(self) -> str:
        return self.text


def test_fields_are_what_they_were_when_they_were_logged() -> None:
    numbers, changing = [1, {"a": [2]}], Changing()
    fields = {"numbers": numbers, "changing": changing, "colour": Colour.RED, "plain": "x", "none": None}
    captured = captured_fields(fields)
    numbers.append(3)
    changing.text = "after"
    fields["new"] = 1
    content = parsed(line(fields=captured))
    assert content["numbers"] == [1, {"a": [2]}]
    assert content["changing"] == "before"
    assert (content["colour"], content["plain"], content["none"]) == (1, "x", None)
    assert "new" not in content


def test_the_time_is_cut_to_milliseconds_as_datetime_does_it() -> None:
    for at in (0.0, 1_750_000_000.9999, 1_750_000_000.9999999, 1_750_000_001.0005, 1_750_000_000.1234):
        expected = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        assert parsed(line()._replace(at=at))["ts"] == expected


def test_a_lone_surrogate_is_no_reason_to_lose_the_line() -> None:
    assert parsed(line("bad \udc80 text"))["message"] == "bad \udc80 text"


def test_the_console_line_is_plain_without_a_terminal() -> None:
    text = console_line(line(fields={"model": "m", "s": 0.123456, "long": "x" * 100}), is_coloured=False)
    assert text.endswith(" INFO    cache       loaded  model=m s=0.1235\n")
    assert "\x1b" not in text


def test_an_alert_on_the_console_is_its_sentence_alone() -> None:
    sentence = "alert slow fired: x is 3 (rule: x > 2); look"
    given = line(sentence, {"event": "alert", "alert": "slow", "advice": "look", "at": 1.796e9}, level="WARNING")
    assert console_line(given, is_coloured=False).endswith(f" WARNING cache       {sentence}\n")
    assert parsed(given)["advice"] == "look"
    assert "event=load" in console_line(line(fields={"event": "load"}), is_coloured=False)


def test_the_console_line_is_coloured_on_a_terminal() -> None:
    assert "\x1b[31mERROR" in console_line(line(level="ERROR"), is_coloured=True)


def test_a_message_cannot_forge_a_line_or_move_the_cursor() -> None:
    text = console_line(line("one\n12:00:00 ERROR two \x1b[2J \x9b"), is_coloured=False)
    assert text.count("\n") == 1
    assert "\x1b" not in text
    assert "\x9b" not in text


def test_a_traceback_is_indented_below_its_line() -> None:
    text = console_line(line(exc="Traceback:\n  ValueError: no"), is_coloured=False)
    assert text.splitlines()[1:] == ["    Traceback:", "      ValueError: no"]
