"""service: `ondol alerts check`: a file of alert rules, checked without a server."""

from __future__ import annotations

import click

from ondol.cli.alert_rows import file_rule_row, print_rows
from ondol.cli.exits import EXIT_INVALID, EXIT_OK
from ondol.cli.layout import clean
from ondol.cli.output import print_json
from ondol.errors import InvalidSettingError
from ondol.monitor.alert_file import load_alert_file

__all__ = ["check_file"]


def check_file(file: str, *, is_json: bool) -> int:
    """Print what ``file`` says; return the exit code.

    Raises:
        InvalidSettingError: the mistakes in it, unless they are wanted as JSON.
    """
    try:
        content = load_alert_file(file)
    except InvalidSettingError as exc:
        if not is_json:
            raise
        print_json({"file": file, "is_valid": False, "problems": list(exc.problems)})
        return EXIT_INVALID
    own = {rule.name for rule in content.rules}
    rules = [
        {**rule.as_dict(), "condition": rule.condition, "is_default": rule.name not in own}
        for rule in content.all_rules()
    ]
    notifiers = [*(target.name for target in content.webhooks), *(target.name for target in content.apprise)]
    if is_json:
        parts = {"notifiers": notifiers, "silences": len(content.silences), "disabled": list(content.disabled)}
        print_json({"file": file, "is_valid": True, "problems": [], "rules": rules, **parts})
        return EXIT_OK
    titles = ("alert!", "from!", "severity!", "condition", "what to do")
    print_rows(titles, [file_rule_row(rule) for rule in rules], "It leaves no rules.")
    told = ", ".join(notifiers) or "nobody, they are logged"
    click.echo(clean(f"notices go to: {told}; silences: {len(content.silences)}"))
    return EXIT_OK
