"""The tables of the documents are those of the committed rows."""

from pathlib import Path

import pytest

import headline

MARKS = [(document, mark) for document, tables in headline.TABLES.items() for mark in tables]


@pytest.mark.parametrize(("document", "mark"), MARKS, ids=[mark for _, mark in MARKS])
def test_a_table_is_what_the_rows_say(document: Path, mark: str) -> None:
    text = document.read_text("utf-8")
    shown = text.partition(f"<!-- {mark} -->\n")[2].partition(f"\n<!-- end of {mark} -->")[0]
    assert shown == "\n".join(headline.TABLES[document][mark]())


def test_rows_of_an_ensemble_with_and_without_tta_and_students_have_every_column(monkeypatch: pytest.MonkeyPatch) -> None:
    import predictions

    row = {
        "date": "2026-11-30", "commit": "0" * 40, "cpu": "AMD EPYC", "processor": "avx2", "cores": 2, "gpu": None,
        "precision": "fp32", "recipe": "davidnet", "settings": "seed = 0", "accuracy": 0.95, "ece_calibrated": 0.01,
        "gain": {"accuracy": {"members": [0.93, 0.94], "gain": 0.015, "gain_interval": [0.01, 0.02]}},
        "students": {
            "accuracy": {"mean": 0.94, "sd": 0.01, "difference": 0.005, "low": -0.001, "high": 0.011},
            "ece_calibrated": {"mean": 0.01, "sd": 0.001},
        },
    }  # fmt: skip
    monkeypatch.setattr(predictions, "newest", lambda *keys: [row])
    head, line, *lines = predictions.ensembles()
    assert {text.count("|") for text in (head, line, *lines)} == {10}
    assert "+1.50 (+1.00 to +2.00)" in lines[1]
    assert "+0.50 (-0.10 to +1.10)" in lines[2]
