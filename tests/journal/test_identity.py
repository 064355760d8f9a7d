"""A run keeps its identity, also when one of its two files is lost or damaged."""

import json

import pytest

from lerax_dist.journal import Identity, take_identity
from tests.journal.journals import opened, row, write


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"run_id": "x"}'])
def test_the_journal_stands_in_for_the_file(tmp_path, content):
    rows = [row(step, a=1.0) for step in range(100)]
    write(tmp_path, [opened(run_id="one"), *rows, opened(run_id="one", incarnation=4), *rows])
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    assert take_identity(tmp_path, continues=True) == Identity("one", 5)
    assert json.loads((tmp_path / "run.json").read_text()) == {"run_id": "one", "incarnation": 5}
    assert take_identity(tmp_path, continues=True) == Identity("one", 6)


def test_a_new_run_gets_an_id_and_a_lost_one_counts_as_resumed(tmp_path):
    write(tmp_path, [])
    assert take_identity(tmp_path, continues=False).incarnation == 1
    (tmp_path / "run.json").unlink()
    assert take_identity(tmp_path, continues=True).incarnation == 2


def test_another_run_than_that_of_a_checkpoint_is_an_error(tmp_path):
    write(tmp_path, [opened(run_id="one")])
    with pytest.raises(ValueError, match="id two, but .* holds one with the id one"):
        take_identity(tmp_path, continues=True, known=Identity("two", 3))
    assert not (tmp_path / "run.json").exists()
