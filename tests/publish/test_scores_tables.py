"""The tables of a run: a row per group, its mean and all faces; what is missing is said, and so is what was resampled."""

from __future__ import annotations

from dfad_bench.publish.scores import headline_tables, report_tables, result_tables
from dfad_bench.publish.tables import Table
from dfad_bench.records.results import PerturbationRecord
from tests.publish.builders import FACES, a_protocol, a_result, note_of, row_of
from tests.scoring.builders import Face, predictions

CLIPS = [
    Face(name, fake_score=score, says=name, video=f"{name}/{clip}", identity=f"{name}-{clip}")
    for name, low in (("real", 0.1), ("ddpm", 0.4))
    for clip in range(6)
    for score in (low, low + 0.08 * clip)
]


def detection(**fields: object) -> Table:
    return result_tables(a_result(**fields))[0]  # type: ignore[arg-type]


def attribution(**fields: object) -> Table:
    return result_tables(a_result(**fields))[1]  # type: ignore[arg-type]


def test_detection_has_a_row_per_group_of_fakes_then_the_mean_then_all_together() -> None:
    assert [row[:2] for row in detection().rows] == [
        *(("seen", group) for group in ("ddpm", "stylegan3", "mean", "pooled")),
        *(("unseen", group) for group in ("flux", "sd15", "mean", "pooled")),
    ]


def test_in_attribution_real_faces_are_a_group_too() -> None:
    assert [row[:2] for row in attribution().rows] == [
        *(("seen", group) for group in ("real", "ddpm", "stylegan3", "mean", "pooled")),
        *(("unseen", group) for group in ("real", "flux", "sd15", "mean", "pooled")),
    ]


def test_values_are_percentages_beside_the_number_of_faces() -> None:
    found = row_of(detection(), "seen", "stylegan3")
    assert (found["AUC %"], found["ACC@0.5 %"], found["faces"]) == ("100.0", "66.7", "3")
    found = row_of(attribution(), "seen", "stylegan3")
    assert (found["ACC forgery type %"], found["ACC family %"], found["faces"]) == ("0.0", "100.0", "1")
    assert row_of(attribution(), "unseen", "pooled")["faces"] == "4"


def test_a_threshold_that_val_cannot_choose_is_a_dash_that_says_so() -> None:
    cell = row_of(detection(), "seen", "ddpm")["ACC@val %"]
    assert note_of(detection(), cell).endswith("val has no face.")


def test_a_level_that_training_has_no_class_for_is_a_dash_that_says_so() -> None:
    cell = row_of(attribution(), "unseen", "sd15")["ACC generator %"]
    assert cell.startswith("–")
    assert note_of(attribution(), cell).endswith("training has no such class at this level.")


def test_a_value_that_leaves_faces_out_says_how_many() -> None:
    cell = row_of(attribution(), "unseen", "mean")["ACC family %"]
    assert cell.startswith("75.0 (")
    assert "leaves out 1 face " in note_of(attribution(), cell)


def test_a_pure_detector_has_no_table_of_attribution() -> None:
    result = a_result(scored=predictions(FACES, detector=True))
    assert [table.title for table in result_tables(result)] == ["xception on demo v1: detection"]
    assert len(report_tables("t", result.scores, result.scoring)) == 3


def test_the_notes_tell_what_is_missing_why_it_is_not_eligible_and_the_protocols_warning() -> None:
    tables = result_tables(
        a_result(
            skipped={"unreadable": 2, "absent": 1},
            ineligible=["limited to 5 faces"],
            protocol=a_protocol(warning="reals and fakes differ in format"),
        )
    )
    assert "7 of 10 faces were evaluated; left out: 1 absent, 2 unreadable." in tables[-1].notes
    assert "Not eligible for the leaderboard: limited to 5 faces." in tables[-1].notes
    assert "Warning: reals and fakes differ in format" in tables[-1].notes


def test_a_whole_run_has_no_such_notes() -> None:
    told = " ".join(note for table in result_tables(a_result()) for note in table.notes)
    assert "evaluated" not in told
    assert "eligible" not in told
    assert "Warning" not in told


def test_a_perturbed_run_says_so_in_its_title() -> None:
    record = PerturbationRecord(name="jpeg", severity=3, strength="JPEG quality 40")
    assert "perturbed: JPEG quality 40" in detection(perturbation=record).title


def test_intervals_stand_beside_their_values_with_what_was_resampled() -> None:
    table = detection(scored=predictions(CLIPS), resamples=200)
    low, high = (float(end) for end in row_of(table, "seen", "ddpm")["AUC %"].split("[")[1].rstrip("]").split(","))
    assert 0 <= low < high <= 100
    assert row_of(table, "seen", "ddpm")["clusters"].startswith("6 (")
    notes = " ".join(attribution(scored=predictions(CLIPS), resamples=200).notes)
    assert "200 resamples of the 12 clusters of test faces (faces that share a person or a video)" in notes
    assert "No intervals were asked for." in attribution(scored=predictions(CLIPS)).notes


def test_by_video_there_is_a_column_where_faces_share_videos_and_a_note_where_they_do_not() -> None:
    assert "AUC by video %" in detection(scored=predictions(CLIPS)).columns
    assert "AUC by video %" not in detection().columns
    assert any(note.startswith("By video the numbers are the same") for note in detection().notes)


def test_the_whole_report_shows_every_kind_of_number_once() -> None:
    result = a_result(resamples=20)
    titles = [table.title.removeprefix("t: ") for table in report_tables("t", result.scores, result.scoring)]
    assert titles == [
        "detection",
        "attribution",
        "detection by frame, rankings",
        "detection by frame, decisions and probabilities",
        "attribution, all faces of a subset together",
        "detection and attribution together",
        "faces of classes that training lacks",
    ]
    by_video = a_result(scored=predictions(CLIPS))
    assert len(report_tables("t", by_video.scores, by_video.scoring)) == len(titles) + 2


def test_the_report_ends_with_the_protocols_warning_and_headlines_need_no_result() -> None:
    result = a_result()
    assert "Warning: beware" in report_tables("t", result.scores, result.scoring, "beware")[-1].notes
    assert headline_tables("t", result.scores, result.scoring)[0].rows == detection().rows
