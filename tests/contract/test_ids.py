import pytest

from contract import ids


@pytest.mark.parametrize("prefix", [ids.JOB, ids.DATASET, ids.EXPORT, ids.KEY, ids.WEBHOOK, ids.DELIVERY])
def test_new_id_has_the_form_of_its_prefix_alone(prefix: str) -> None:
    made = ids.new_id(prefix)
    assert [other for other in (ids.JOB, ids.DATASET, ids.EXPORT, ids.KEY) if ids.is_id(other, made)] == [
        other for other in (ids.JOB, ids.DATASET, ids.EXPORT, ids.KEY) if other == prefix
    ]
    assert ids.new_id(prefix) != made


@pytest.mark.parametrize("text", ["", "job_", "job_" + "0" * 23, "job_" + "0" * 24 + "\n", "job_" + "g" * 24, "\0"])
def test_other_text_is_no_id(text: str) -> None:
    assert not ids.is_id(ids.JOB, text)
