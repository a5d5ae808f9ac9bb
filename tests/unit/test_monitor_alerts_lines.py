from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ondol.monitor.alert_file_lines import find_lines, line_of

if TYPE_CHECKING:
    from collections.abc import Iterator

# Every number in these texts is the line it stands on.
TEXTS = {
    "comments": "# a = [\na = 2 # b = 9\n\n  # [[rules]]\nb = 5\n\n\t[t] # x\n  c = 8",
    "array tables": "[[rules]]\nn = 2\n[[rules]]\n[rules.where]\nr = 5\n[[rules]]\n\nn = 8\n[other]\nn = 10\n",
    "nested array tables": "[[a]]\n[[a.b]]\nc = 3\n[[a.b]]\nc = 5\n[[a]]\n[[a.b]]\nc = 8\n[a.d.e]\nf = 10\n",
    "basic strings": r"""
s = "a # no comment \" [[rules]] = 9"
n = 3
e = ""
n2 = 5
t = "\\"
n3 = 7
""",
    "literal strings": "s = 'C:\\'\nn = 2\nt = ''\nu = 4\n",
    "multi-line basic": 's = """\n[[rules]]\nx = 1\n\\"""\n ""\n"""\nn = 7\nt = """a"""""\nm = 9\nu = """"""\nk = 11\n',
    "multi-line literal": "s = '''\nn = 0 \\\n''\n'''\nn = 5\nt = '''a'''''\nm = 7\n",
    "arrays": 'a = [\n  2, # ]\n  3,\n\n  ["x]", 5,\n 6], {k = 6},\n]\nb = [8]\nc = []\nd = [ # none\n]\ne = 12\n',
    "inline tables": 'a = {b = 1, "c.d" = {e = 1}, f.g = 1}\nh = { }\ni = [{j = 3},\n{j = 4}]\n',
    "strings in arrays": "a = [\"\"\"\n,]\"\"\", 2, '''\n]''', 3]\nb = 4\n",
    "quoted keys": '"a b" = 1\n\'c.d\' = 2\n"\\u00e9\\"" = 3\n["x.y".\'z\']\n"" = 5\n',
    "dotted keys": "a.b . c = 1\na.b.d = 2\n[e]\nf.g = 4\nf.h = 5\n",
    "odd values": "a = 1979-05-27 07:32:00Z\nb = 2\nc = -inf\nd = 0x4\ne = true\nf = 6",
    "windows": "a = 1\r\n# b\r\n[t]\r\nb = 4\r\nc = [\r\n 6,\r\n]\r\n",
    "nothing": "",
    "only a comment": "# a = 5",
}


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield each way into ``value`` and what is there."""
    if path:
        yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from leaves(inner, (*path, number))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_every_value_is_found_on_its_line(text: str) -> None:
    lines = find_lines(text)
    found = dict(leaves(tomllib.loads(text)))
    assert set(lines) == set(found)
    numbers = {path: value for path, value in found.items() if type(value) is int}
    assert {path: lines[path] for path in numbers} == numbers
    assert numbers or len(text) < 10


def test_tables_are_on_the_lines_of_their_headers() -> None:
    lines = find_lines("\n[[rules]]\nname = 'a'\n\n[[rules]]\n[rules.where]\nx = 'y'\n[grouping]\n")
    assert lines["rules", 0] == 2
    assert lines["rules", 1] == 5
    assert lines["rules", 1, "where"] == 6
    assert lines["rules", 1, "where", "x"] == 7
    assert lines["grouping",] == 8


def test_what_is_not_there_is_on_the_line_of_what_would_hold_it() -> None:
    lines = find_lines("\n[[rules]]\nname = 'a'\n")
    assert line_of(lines, ("rules", 0, "operator")) == 2
    assert line_of(lines, ("rules", 7, "operator")) == 2
    assert line_of(lines, ("webhooks", 0)) == 1
    assert line_of({}, ()) == 1


@pytest.mark.parametrize("name", ["pyproject.toml", "uv.lock"])
def test_long_files_are_understood_as_a_whole(name: str) -> None:
    text = (Path(__file__).parents[2] / name).read_text(encoding="utf-8")
    lines = find_lines(text)
    assert set(lines) == {path for path, _value in leaves(tomllib.loads(text))}
    rows = text.split("\n")
    named = [(path, line) for path, line in lines.items() if path[-1] == "name" and len(path) == 3]
    assert all('name = "' in rows[line - 1] for _path, line in named)
