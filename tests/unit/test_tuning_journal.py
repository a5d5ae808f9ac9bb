from __future__ import annotations

from ondol.tuning.journal import Journal


def test_the_newest_is_last_and_old_entries_go() -> None:
    journal = Journal(max_entries=3)
    for number in range(5):
        journal.add(float(number), "shrink", f"sentence {number}")
    assert journal.sentences() == ["sentence 2", "sentence 3", "sentence 4"]
    assert journal.count == 5
    assert journal.entries()[-1].as_dict() == {"at": 4.0, "action": "shrink", "sentence": "sentence 4"}
