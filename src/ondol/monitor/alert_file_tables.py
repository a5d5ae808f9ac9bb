"""decision: what the tables of ``ondol-alerts.toml`` mean, and what of them is a mistake."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from ondol.monitor.alert_file_values import TableReader, nearest
from ondol.monitor.alert_rule import AlertRule, refusals, shown
from ondol.monitor.default_rules import DEFAULT_RULES
from ondol.monitor.silences import MAX_SILENCE_S, MAX_SILENCES, PlannedSilence, matcher_refusals
from ondol.monitor.targets import AppriseTarget, Grouping, WebhookTarget

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ondol.monitor.alert_file_values import Problems

__all__ = ["AlertFile", "Surroundings", "read_tables"]

_ARRAYS: Final = ("rules", "webhooks", "apprise", "silences")
_TABLES: Final = ("grouping", "defaults")
_RULE_KEYS: Final = tuple(item.name for item in fields(AlertRule))
_RULE_MUSTS: Final = ("name", "metric_name", "threshold", "operator")
_SENDING_KEYS: Final = ("timeout_seconds", "retry_for_seconds", "sends_resolved", "name")
_LABEL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ALL_LABELS: Final = "..."
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,19}(?=://)")
# A digit without an underscore may be part of a key, such as those of clouds.
_PLAIN_VARIABLE: Final = re.compile(r"[A-Z]+|[A-Z][A-Z0-9]*_[A-Z0-9_]*")


class AlertFile(NamedTuple):
    """What a file says about alerts and notices."""

    rules: tuple[AlertRule, ...] = ()
    disabled: tuple[str, ...] = ()
    """Names of default rules that are not wanted."""
    webhooks: tuple[WebhookTarget, ...] = ()
    apprise: tuple[AppriseTarget, ...] = ()
    grouping: Grouping = Grouping()
    silences: tuple[PlannedSilence, ...] = ()
    """Those whose end has passed are still among them."""

    def all_rules(self, defaults: Iterable[AlertRule] = DEFAULT_RULES) -> tuple[AlertRule, ...]:
        """Return ``defaults`` without the disabled ones and those of which the file has its own, and the file's."""
        unwanted = {*self.disabled, *(rule.name for rule in self.rules)}
        return (*(rule for rule in defaults if rule.name not in unwanted), *self.rules)


class Surroundings(NamedTuple):
    """What a file is read within."""

    environ: Mapping[str, str]
    """Environment variables, for secrets that are not in the file."""
    wall_s: float
    """The time now, in seconds since the Unix epoch."""
    file_name: str
    """Who made the silences of the file."""


def read_tables(document: Mapping[str, Any], problems: Problems, around: Surroundings) -> AlertFile:
    """Return what ``document`` says; what is wrong with it is added to ``problems``."""
    _refuse_strangers(document, problems)
    names = _TargetNames(document)
    return AlertFile(
        rules=_rules(document, problems),
        disabled=_disabled(_table(document, "defaults", problems)),
        webhooks=tuple(_webhook(table, names, around) for table in _array(document, "webhooks", problems)),
        apprise=tuple(_apprise(table, names, around) for table in _array(document, "apprise", problems)),
        grouping=_grouping(_table(document, "grouping", problems)),
        silences=_silences(document, problems, around),
    )


def _refuse_strangers(document: Mapping[str, Any], problems: Problems) -> None:
    for key in document:
        if key not in _ARRAYS and key not in _TABLES:
            problems.add((key,), f"unknown table or key {shown(key)}; {nearest(key, (*_ARRAYS, *_TABLES))}")


def _table(document: Mapping[str, Any], name: str, problems: Problems) -> TableReader:
    table = document.get(name, {})
    if not isinstance(table, dict):
        problems.add((name,), f"{name} must be one table, written [{name}]")
        table = {}
    return TableReader(table, (name,), f"[{name}]", problems)


def _array(document: Mapping[str, Any], name: str, problems: Problems) -> Iterator[TableReader]:
    tables = document.get(name, [])
    if not isinstance(tables, list):
        problems.add((name,), f"{name} must be an array of tables: write [[{name}]] above each of them")
        return
    for number, table in enumerate(tables):
        path = (name, number)
        if isinstance(table, dict):
            own_name = table.get("name")
            which = shown(own_name) if isinstance(own_name, str) else f"number {number + 1}"
            yield TableReader(table, path, f"[[{name}]] {which}", problems)
        else:
            problems.add(path, f"{name}: each element must be a table, written [[{name}]]")


# --- rules ---


def _rules(document: Mapping[str, Any], problems: Problems) -> tuple[AlertRule, ...]:
    rules: list[AlertRule] = []
    line_by_name: dict[str, int] = {}
    for number, table in enumerate(_array(document, "rules", problems)):
        rule = _rule(table)
        name = table.table.get("name")
        if isinstance(name, str):
            if name in line_by_name:
                table.refuse("name", f"name={shown(name)} is the name of the rule on line {line_by_name[name]} too")
            line_by_name.setdefault(name, problems.line(("rules", number, "name")))
        if rule is not None:
            rules.append(rule)
    return tuple(rules)


def _rule(table: TableReader) -> AlertRule | None:
    table.refuse_unknown(_RULE_KEYS)
    table.require(*_RULE_MUSTS)
    for key, sentence in refusals(table.table):
        table.refuse(key, sentence)
    return AlertRule(**table.table) if table.is_clean else None


def _disabled(table: TableReader) -> tuple[str, ...]:
    table.refuse_unknown(("disable",))
    names = table.texts("disable", ())
    known = [rule.name for rule in DEFAULT_RULES]
    for name in names:
        if name not in known:
            table.refuse("disable", f"disable: there is no default rule {shown(name)}; {nearest(name, known)}")
    return names


# --- where notices go ---


class _TargetNames:
    """Gives each target a name of its own, under which its figures are shown."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        tables = [*_listed(document.get("webhooks")), *_listed(document.get("apprise"))]
        self._given = {table["name"] for table in tables if isinstance(table.get("name"), str)}
        self._used: set[str] = set()

    def take(self, table: TableReader, default: str) -> str:
        name = table.text("name", "", shortest=1, longest=100)
        if not name:
            taken = self._given | self._used
            name = next(name for name in _numbered(default) if name not in taken)
        elif name in self._used:
            table.refuse("name", f"name={shown(name)} is the name of another target: each needs its own")
        self._used.add(name)
        return name


def _listed(tables: object) -> list[dict[str, Any]]:
    return [table for table in tables if isinstance(table, dict)] if isinstance(tables, list) else []


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1


def _webhook(table: TableReader, names: _TargetNames, around: Surroundings) -> WebhookTarget:
    table.refuse_unknown(("url", "secret", "secret_env", *_SENDING_KEYS))
    table.require("url")
    url = table.secret("url") or ""
    if url and not _is_web_address(url):
        allowed = "it must be an address with http:// or https:// and a host, such as https://alerts.example.com/hook"
        table.refuse("url", f"url={_shown_url(url)} is not allowed: {allowed}")
    secret = table.secret("secret")
    variable = _variable(table, "secret", around)
    return WebhookTarget(
        url=url,
        secret=secret if variable is None else variable,
        timeout_s=table.seconds("timeout_seconds", 10.0, least=0.1, most=600.0),
        retry_for_s=table.seconds("retry_for_seconds", 300.0),
        sends_resolved=table.flag("sends_resolved", default=True),
        name=names.take(table, "webhook"),
    )


def _apprise(table: TableReader, names: _TargetNames, around: Surroundings) -> AppriseTarget:
    table.refuse_unknown(("urls", "urls_env", *_SENDING_KEYS))
    if "urls_env" not in table.table:
        table.require("urls")
    urls = table.secrets("urls")
    variable = _variable(table, "urls", around)
    if variable is not None:
        urls = tuple(variable.split())
    key = "urls" if variable is None else "urls_env"
    if not urls and table.is_clean:
        table.refuse(key, f"{key}: at least one address must be given")
    for number, url in enumerate(urls, start=1):
        if not _SCHEME.match(url):
            allowed = "it must be an address as Apprise knows them, such as mailto://… or slack://…"
            table.refuse(key, f"{key}: address {number} is not allowed (its value is not shown): {allowed}")
    return AppriseTarget(
        urls=urls,
        timeout_s=table.seconds("timeout_seconds", 30.0, least=0.1, most=600.0),
        retry_for_s=table.seconds("retry_for_seconds", 300.0),
        sends_resolved=table.flag("sends_resolved", default=True),
        name=names.take(table, "apprise"),
    )


def _variable(table: TableReader, key: str, around: Surroundings) -> str | None:
    """Return the value of the environment variable that ``key_env`` names; ``None`` without that key."""
    env_key = f"{key}_env"
    if env_key not in table.table:
        return None
    if key in table.table:
        table.refuse(env_key, f"{key} and {env_key} are both given: only one of them is allowed")
    name = table.secret(env_key)
    value = around.environ.get(name, "") if name else ""
    if name and not value:
        # Somebody may have put the secret itself here; what does not look like a variable is not shown.
        which = name if _PLAIN_VARIABLE.fullmatch(name) else "of that name (not shown: it looks like no variable)"
        table.refuse(env_key, f"{env_key}: the environment variable {which} is not set: it must hold the {key}")
    return value


def _is_web_address(url: str) -> bool:
    if any(character.isspace() or not character.isprintable() for character in url):
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets that do not match
        return False


def _shown_url(url: str) -> str:
    """Return the scheme alone: host, path and user may hold a token."""
    scheme = _SCHEME.match(url)
    return f"'{scheme.group()}://…'" if scheme else f"(a text of {len(url)} characters, not shown)"


def _grouping(table: TableReader) -> Grouping:
    table.refuse_unknown(("by", "wait_seconds", "interval_seconds", "repeat_seconds"))
    defaults = Grouping()
    by = table.texts("by", defaults.by)
    is_plain = all(_LABEL.fullmatch(name) for name in by)
    if not is_plain and by != (_ALL_LABELS,):
        allowed = f"it must be an array of label names, or [{_ALL_LABELS!r}] for all labels"
        table.refuse("by", f"by={shown(list(by))} is not allowed: {allowed}")
    return Grouping(
        by=by,
        wait_s=table.seconds("wait_seconds", defaults.wait_s),
        interval_s=table.seconds("interval_seconds", defaults.interval_s),
        repeat_s=table.seconds("repeat_seconds", defaults.repeat_s, most=MAX_SILENCE_S),
    )


# --- silences ---


def _silences(document: Mapping[str, Any], problems: Problems, around: Surroundings) -> tuple[PlannedSilence, ...]:
    silences = [_silence(table, around) for table in _array(document, "silences", problems)]
    if len(silences) > MAX_SILENCES:
        problems.add(("silences", MAX_SILENCES), f"{len(silences)} silences are too many: at most {MAX_SILENCES}")
    return tuple(silence for silence in silences if silence is not None)


def _silence(table: TableReader, around: Surroundings) -> PlannedSilence | None:
    table.refuse_unknown(("matchers", "ends_at", "starts_at", "comment"))
    table.require("matchers", "ends_at")
    if "matchers" in table.table:
        for sentence in matcher_refusals(table.table["matchers"]):
            table.refuse("matchers", sentence)
    starts_at, ends_at = table.instant("starts_at"), table.instant("ends_at")
    comment = table.text("comment", longest=1000)
    if ends_at is not None:
        begin = around.wall_s if starts_at is None else starts_at
        given = f"ends_at={table.table['ends_at']} is not allowed: it must be"
        if starts_at is not None and ends_at <= starts_at:
            table.refuse("ends_at", f"{given} after starts_at ({table.table['starts_at']})")
        if max(begin, ends_at) > around.wall_s + MAX_SILENCE_S:
            table.refuse("ends_at", f"{given} within {MAX_SILENCE_S / 86400:.0f} days from now")
    if not table.is_clean or ends_at is None:
        return None
    return PlannedSilence(table.table["matchers"], ends_at, starts_at, comment, around.file_name[:200])
