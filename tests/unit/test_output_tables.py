"""Tables lose nothing to a narrow terminal: ids and dates are there to be copied and piped."""

import pytest

from cli.output import print_rows

ROW = {"id": "e237e91a03edfd04c78f29360e3459af", "action": "show_help_coming", "issued_at": "2026-11-21 12:43:09Z",
       "not_after": "2026-11-21 12:44:09Z", "reason": "hardware silent [x]", "online": True, "late": False,
       "nothing": None}  # fmt: skip


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_a_row_is_one_line_and_whole(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    print_rows([ROW, ROW], list(ROW), as_json=False, empty="none")
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0].strip() == "id"
    assert first == second
    for value in ROW.values():
        if isinstance(value, str):
            assert value in first
    assert first.rstrip().endswith("yes     no"), "words, not True and False"


def test_nothing_to_show_says_what_to_do(capsys):
    print_rows([], ["id"], as_json=False, empty="None yet. Make one.")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "None yet. Make one.\n")
