from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ondol.errors import ConfigurationError, InvalidSettingError
from ondol.monitor.alert_file import AlertFile, load_alert_file
from ondol.monitor.alerting import AlertDesk
from ondol.monitor.alerts import AlertRule
from ondol.monitor.default_rules import DEFAULT_RULES
from ondol.monitor.silences import PlannedSilence
from ondol.monitor.targets import AppriseTarget, Grouping, WebhookTarget
from ondol.testing import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_750_000_000.0  # 2025-06-15T15:06:40Z
WHOLE = """\
# Alerts of the similarity server
[[rules]]
name = "slow_requests"
metric_name = "api.response_time"
threshold = 2
operator = ">"
duration_seconds = 60
severity = "critical"
message = '''
더 많은 작업자를 쓰세요'''
clear_threshold = 1.5
keep_firing_seconds = 120
aggregate = "p99"
window_seconds = 300
no_data = "keep"
labels = { team = "web" }

  [rules.where]
  route = "/v1/search"

[[rules]]
name = "memory_high"
metric_name = "system.memory_percent"
threshold = 70.5
operator = ">="

[defaults]
disable = ["cache_hit_rate_low", "disk_full"]

[[webhooks]]
url = "https://user:pass@alerts.example.com:8443/hook?token=t"
secret_env = "ALERT_SECRET"
timeout_seconds = 5
retry_for_seconds = 600
sends_resolved = false
name = "ops"

[[webhooks]]
url = "http://127.0.0.1:9093/hook"
secret = "plain"

[[apprise]]
urls = ["mailto://user:pass@example.com", "slack://a/b/c"]

[[apprise]]
urls_env = "ALERT_URLS"

[grouping]
by = ["alertname", "team"]
wait_seconds = 30
interval_seconds = 60.5
repeat_seconds = 14400

[[silences]]
matchers = { alertname = "disk_*" }
starts_at = 2025-06-16T00:00:00+09:00
ends_at = 2025-06-16T09:00:00+09:00
comment = "the disk is being replaced"

[[silences]]
matchers.team = "web"
ends_at = 2025-06-01T00:00:00Z
"""
ENVIRON = {"ALERT_SECRET": "from outside", "ALERT_URLS": " json://a \n xml://b "}


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "ondol-alerts.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def load(folder: Path, text: str | bytes, environ: dict[str, str] | None = None) -> AlertFile:
    return load_alert_file(write(folder, text), environ=environ or {}, clock=FakeClock(epoch_s=NOW))


def problems(folder: Path, text: str | bytes, environ: dict[str, str] | None = None) -> list[str]:
    """Return the mistakes found, without the path of the file, which each of them must begin with."""
    with pytest.raises(InvalidSettingError) as caught:
        load(folder, text, environ)
    start = str(folder / "ondol-alerts.toml") + ":"
    assert all(problem.startswith(start) for problem in caught.value.problems)
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    return [problem.removeprefix(start) for problem in caught.value.problems]


def test_a_whole_file(tmp_path: Path) -> None:
    content = load(tmp_path, WHOLE, ENVIRON)
    assert content.rules == (
        AlertRule(
            "slow_requests",
            "api.response_time",
            2,
            ">",
            60,
            "critical",
            "더 많은 작업자를 쓰세요",
            clear_threshold=1.5,
            keep_firing_seconds=120,
            aggregate="p99",
            window_seconds=300,
            no_data="keep",
            labels={"team": "web"},
            where={"route": "/v1/search"},
        ),
        AlertRule("memory_high", "system.memory_percent", 70.5, ">="),
    )
    assert content.disabled == ("cache_hit_rate_low", "disk_full")
    assert content.webhooks == (
        WebhookTarget(
            "https://user:pass@alerts.example.com:8443/hook?token=t", "from outside", 5.0, 600.0, False, "ops"
        ),
        WebhookTarget("http://127.0.0.1:9093/hook", "plain"),
    )
    assert content.apprise == (
        AppriseTarget(("mailto://user:pass@example.com", "slack://a/b/c")),
        AppriseTarget(("json://a", "xml://b"), name="apprise-2"),
    )
    assert content.grouping == Grouping(("alertname", "team"), 30.0, 60.5, 14400.0)
    assert content.silences == (
        PlannedSilence(
            {"alertname": "disk_*"}, NOW + 32000, NOW - 400, "the disk is being replaced", "ondol-alerts.toml"
        ),
        PlannedSilence({"team": "web"}, 1748736000.0, None, "", "ondol-alerts.toml"),
    )


def test_the_files_rules_take_the_place_of_default_rules(tmp_path: Path) -> None:
    rules = load(tmp_path, WHOLE, ENVIRON).all_rules()
    assert len({rule.name for rule in rules}) == len(rules) == len(DEFAULT_RULES) - 2 + 1
    assert {rule.name: rule.threshold for rule in rules}["memory_high"] == 70.5
    assert AlertFile().all_rules() == DEFAULT_RULES


def test_the_silences_of_a_file_go_to_the_desk_unless_they_are_over(tmp_path: Path) -> None:
    clock = FakeClock(epoch_s=NOW)
    desk = AlertDesk(clock)
    made = [desk.plan(planned) for planned in load(tmp_path, WHOLE, ENVIRON).silences]
    assert [silence is not None for silence in made] == [True, False]
    assert [silence.ends_at for silence in desk.silences()] == [NOW + 32000]
    clock.advance(31999)
    assert desk.is_silenced({"alertname": "disk_full"}) is not None
    clock.advance(1)
    assert desk.is_silenced({"alertname": "disk_full"}) is None


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "rules = []\n", b"\xef\xbb\xbf[grouping]\r\nwait_seconds = 10\r\n"]
)
def test_a_file_that_says_nothing_says_the_defaults(tmp_path: Path, text: str | bytes) -> None:
    assert load(tmp_path, text) == AlertFile()


def test_every_mistake_is_told_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    text = """\
titel = 1
[[rules]]
name = "a"
metric_name = "no good"
threshold = "5"
operator = "=>"
severty = "info"
labels = { alertname = "x" }
[[rules]]
name = "a"
[defaults]
disable = ["disk_ful"]
"""
    found = problems(tmp_path, text)
    assert [problem.split(":")[0] for problem in found] == ["1", "4", "5", "6", "7", "8", "9", "10", "12"]
    expected = [
        "unknown table or key 'titel'; allowed: rules, ",
        "[[rules]] 'a': metric name 'no good' is not valid",
        "threshold='5' is not allowed: it must be a finite number",
        "operator='=>' is not allowed: it must be one of: > >=",
        "unknown key 'severty'; did you mean 'severity'? Allowed: name, metric_name",
        "labels: 'alertname' is not allowed",
        "metric_name, threshold, operator must be given",
        "name='a' is the name of the rule on line 3 too",
        "there is no default rule 'disk_ful'; did you mean 'disk_full'?",
    ]
    for problem, part in zip(found, expected, strict=True):
        assert part in problem


RULE = '[[rules]]\nname = "a"\nmetric_name = "m"\nthreshold = 5\noperator = ">"\n'
HOOK = '[[webhooks]]\nurl = "http://a.example"\n'


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("rules = 5", 1, "rules must be an array of tables: write [[rules]]"),
        ("[rules]\nname = 'a'", 1, "write [[rules]]"),
        ("\nrules = [\n5]", 3, "each element must be a table"),
        ("\n[[grouping]]", 2, "grouping must be one table, written [grouping]"),
        (f"{RULE}clear_threshold = 6", 6, "clear_threshold=6 is not allowed: with the operator >"),
        (f"{RULE}window_seconds = 90", 6, "one of: 60, 300, 3600, 86400"),
        (f"{RULE}aggregate = 'p95'", 6, "aggregate='p95' is not allowed: it must be one of: last, avg"),
        (f"{RULE}no_data = true", 6, "no_data=True is not allowed: it must be one of: resolve, keep, alert"),
        (f"{RULE}\n[rules.where]\nroute = 5", 7, "where: route=5 is not allowed"),
        (f"{RULE}threshhold = 5", 6, "did you mean 'threshold'?"),
        ("[[webhooks]]\nname = 'x'", 1, "[[webhooks]] 'x': url must be given"),
        (f"{HOOK}timeout_seconds = 0", 3, "timeout_seconds=0 is not allowed: it must be a number of seconds from 0.1"),
        (f"{HOOK}retry_for_seconds = '5'", 3, "retry_for_seconds='5' is not allowed"),
        (f"{HOOK}sends_resolved = 1", 3, "sends_resolved=1 is not allowed: it must be true or false"),
        (f"{HOOK}name = ''", 3, "name='' is not allowed: it must be a text of 1 to 100"),
        (f"{HOOK}name = 'x'\n{HOOK}name = 'x'", 6, "name='x' is the name of another target"),
        (f"{HOOK}secret_env = 'NOT_SET'", 3, "the environment variable NOT_SET is not set: it must hold the secret"),
        (f"{HOOK}secret_env = 'SECRET'", 3, "the environment variable SECRET is not set"),
        (f"{HOOK}secret_env = 'HOOK2_KEY_'", 3, "the environment variable HOOK2_KEY_ is not set"),
        (f"{HOOK}secret = 'a'\nsecret_env = 'IS_SET'", 4, "secret and secret_env are both given"),
        ("[[apprise]]", 1, "[[apprise]] number 1: urls must be given"),
        ("[[apprise]]\nurls = []", 2, "urls: at least one address must be given"),
        ("[[apprise]]\nurls = 'json://a'", 2, "urls is not allowed (its value is not shown): it must be an array"),
        ("[[apprise]]\nurls_env = 'NOT_SET'", 2, "the environment variable NOT_SET is not set: it must hold the urls"),
        ("[grouping]\nby = ['a b']", 2, "by=['a b'] is not allowed: it must be an array of label names"),
        ("[grouping]\nby = ['a', 'a']", 2, "each of them once"),
        ("[grouping]\nwait_seconds = nan", 2, "wait_seconds=nan is not allowed"),
        ("[grouping]\nwait = 5", 2, "unknown key 'wait'; "),
        ("[[silences]]\nmatchers = {a = 'b'}", 1, "ends_at must be given"),
        ("[[silences]]\nmatchers = {}\nends_at = 2025-07-01T00:00:00Z", 2, "1 to 16 label names"),
        ("[[silences]]\nmatchers = {a = 'b'}\nends_at = 2025-07-01", 3, "ends_at='2025-07-01' is not allowed"),
        ("[[silences]]\nmatchers = {a = 'b'}\nends_at = 2025-07-01T00:00:00", 3, "with an offset"),
        ("[[silences]]\nmatchers = {a = 'b'}\nends_at = '2025-07-01T00:00:00Z'", 3, "without quotation marks"),
        ("[[silences]]\nmatchers = {a = 'b'}\nends_at = 2027-07-01T00:00:00Z", 3, "within 365 days from now"),
        (
            "[[silences]]\nmatchers = {a = 'b'}\nends_at = 2025-07-01T00:00:00Z\nstarts_at = 2025-07-02T00:00:00Z",
            3,
            "after starts_at (2025-07-02",
        ),
        ("[defaults]\ndisable = 'disk_full'", 2, "disable='disk_full' is not allowed: it must be an array of texts"),
        ("[defaults]\ndisabled = []", 2, "did you mean 'disable'?"),
        ("a = 1\n[b\n", 2, "is not valid TOML"),
        ("a = 1\na = 2\n", 2, "is not valid TOML"),
        ("a = '''\n\n", 3, "is not valid TOML"),
        ("a = " + "9" * 5000, 1, "is not valid TOML"),
        ("a = " + "[" * 100_000, 1, "is not valid TOML"),
        (b"a = 1\nb = '\xff'", 2, "is not UTF-8 text"),
    ],
)
def test_one_mistake_has_its_line_and_says_what_is_allowed(
    tmp_path: Path, text: str | bytes, line: int, part: str
) -> None:
    (found,) = problems(tmp_path, text, {"IS_SET": "x"})
    assert found.startswith(f"{line}: ")
    assert part in found


@pytest.mark.parametrize(
    "url",
    [
        *("", "a.example/hunter2", "ftp://hunter2", "slack://hunter2/x", "http://", "https:///hunter2"),
        *("http://hunter2:port", "http://[hunter2", "http://a b.example/hunter2", "http://a.example/hunter2\\n"),
    ],
)
def test_an_address_that_is_none_is_refused_and_not_shown(tmp_path: Path, url: str) -> None:
    (found,) = problems(tmp_path, f'[[webhooks]]\nurl = "{url}"')
    assert found.startswith("2: [[webhooks]] number 1: url")
    assert "hunter2" not in found


@pytest.mark.parametrize(
    "text",
    [
        f"{HOOK}secret = ['hunter2']",
        f"{HOOK}secret = 'hunter2'\nsecret_env = 'IS_SET'",
        f"{HOOK}secret_env = 'hunter2'",
        f"{HOOK}secret_env = 'HUNTER2'",
        f"{HOOK}secrt = 'hunter2'",
        f"{HOOK}secret = hunter2",
        f"{HOOK}secret = 'hunter2",
        "[[webhooks]]\nurl = ['http://hunter2']",
        "[[apprise]]\nurls = ['hunter2']",
        "[[apprise]]\nurls = [['hunter2']]",
        "[[apprise]]\nurls_env = 'BAD_URLS'",
    ],
)
def test_secrets_are_in_no_message(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text, {"IS_SET": "hunter2", "BAD_URLS": "hunter2 json://hunter2"})
    assert "hunter2" not in str(caught.value).lower()
    assert caught.value.__cause__ is None


def test_targets_without_a_name_get_one_that_nobody_has(tmp_path: Path) -> None:
    content = load(
        tmp_path, f"{HOOK}{HOOK}{HOOK}name = 'webhook'\n[[apprise]]\nurls = ['json://a']\nname = 'webhook-2'"
    )
    assert [target.name for target in content.webhooks] == ["webhook-3", "webhook-4", "webhook"]


def test_all_labels_can_be_grouped_by(tmp_path: Path) -> None:
    assert load(tmp_path, "[grouping]\nby = ['...']").grouping.by == ("...",)
    assert load(tmp_path, "[grouping]\nby = []").grouping.by == ()


def test_too_many_silences_are_refused(tmp_path: Path) -> None:
    silence = "[[silences]]\nmatchers = {a = 'b'}\nends_at = 2025-07-01T00:00:00Z\n"
    assert len(load(tmp_path, silence * 200).silences) == 200
    (found,) = problems(tmp_path, silence * 201)
    assert found.startswith("601: 201 silences are too many: at most 200")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(InvalidSettingError, match="cannot be read") as caught:
            load_alert_file(path)
        assert str(path) in str(caught.value)
    with pytest.raises(InvalidSettingError, match="larger than 1000000 bytes"):
        load_alert_file(write(tmp_path, b"#" * 1_000_001))


def test_the_environment_of_the_process_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALERT_SECRET", "from the process")
    (target,) = load_alert_file(write(tmp_path, f"{HOOK}secret_env = 'ALERT_SECRET'")).webhooks
    assert target.secret == "from the process"
