"""The table over seeds: means with what they are worth, and how firm the order is."""

from __future__ import annotations

from dfad_bench.publish.seeds import seeds_table
from dfad_bench.records.results import Result
from dfad_bench.scoring.seeds import over_seeds
from tests.publish.builders import a_protocol, a_result, note_of, row_of
from tests.scoring.test_seeds import runs


def test_models_stand_best_first_with_the_ranks_that_they_had() -> None:
    results = [*runs("steady", [0.5, 0.5]), *runs("shaky", [0.9, 0.3]), *runs("last", [0.1, 0.2])]
    table = seeds_table(over_seeds(results))
    assert [(row[0], row[1], row[2]) for row in table.rows] == [
        ("1–2", "shaky", "0, 1"),
        ("1–2", "steady", "0, 1"),
        ("3", "last", "0, 1"),
    ]
    assert row_of(table, "1–2", "steady")["unseen ACC family %"] == "50.0 ± 0.0 [45.0, 55.0]"
    firm = next(note for note in table.notes if note.startswith("Order by unseen ACC family % over 2 seeds"))
    assert "Kendall's W 0.75" in firm
    assert "1 of 3 models keep their rank; first at least once: shaky, steady." in firm


def test_a_single_seed_has_a_value_and_no_deviation_nor_rank_by_seed() -> None:
    table = seeds_table(over_seeds([*runs("a", [0.5]), *runs("b", [0.4])]))
    assert row_of(table, "–", "a")["unseen ACC family %"] == "50.0 [45.0, 55.0]"
    assert not any(note.startswith("Order by") for note in table.notes)


def test_what_is_undefined_or_not_eligible_says_why() -> None:
    odd: list[Result] = [each.model_copy(update={"ineligible": ["limited"]}) for each in runs("odd", [None, 0.5])]
    table = seeds_table(over_seeds([*odd, *runs("fine", [0.2, 0.3])]))
    row = next(row for row in table.rows if row[1].startswith("odd"))
    assert note_of(table, row[1]).endswith("limited.")
    cell = dict(zip(table.columns, row, strict=True))["unseen ACC family %"]
    assert cell.startswith("–") and note_of(table, cell).endswith("no real face.")
    assert table.rows[-1] == row


def test_a_whole_result_gives_all_headlines_of_all_subsets_and_the_protocols_warning() -> None:
    protocol = a_protocol(warning="These faces prove nothing.")
    table = seeds_table(over_seeds([a_result("a", protocol=protocol)]))
    assert table.columns[3:] == tuple(
        f"{subset} {metric} %"
        for subset in ("seen", "unseen")
        for metric in ("ACC forgery type", "ACC family", "ACC generator", "AUC", "ACC@val")
    )
    assert "Warning: These faces prove nothing." in table.notes
