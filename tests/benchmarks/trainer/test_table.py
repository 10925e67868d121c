import math

from benchmarks.trainer.run import FLOOR, OURS, Run
from benchmarks.trainer.table import Spread, apart, is_void, markdown, ratios, rows, spread


def runs(arm: str, *, rates: list[float | None], losses: list[float | None] | None = None) -> list[Run]:
    losses = losses or [2.0] * len(rates)
    return [
        Run(arm, "half-padded", number, supervised_rate=rate, real_rate=rate, eval_loss=loss)
        for number, (rate, loss) in enumerate(zip(rates, losses, strict=True))
    ]


def test_spread_is_median_minimum_and_maximum() -> None:
    assert spread([3.0, None, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert spread([1.0, 2.0]) == Spread(1.5, 1.0, 2.0)
    assert spread([None]) is None


def test_ratio_is_taken_inside_each_round() -> None:
    # The second round was twice as slow for both: the ratio of the medians would be another.
    ours = runs(OURS, rates=[100.0, 50.0, 90.0])
    theirs = runs("TRL default", rates=[50.0, 25.0, 30.0])
    assert ratios(ours, theirs, lambda run: run.real_rate) == Spread(2.0, 2.0, 3.0)


def test_round_in_which_one_failed_has_no_ratio() -> None:
    ours = runs(OURS, rates=[100.0, 50.0])
    theirs = list(reversed(runs("TRL default", rates=[None, 25.0])))
    assert ratios(ours, theirs, lambda run: run.real_rate) == Spread(2.0, 2.0, 2.0)
    assert ratios(ours, theirs[1:], lambda run: run.real_rate) is None


def test_deviating_arm_is_void() -> None:
    ours = runs(OURS, rates=[1.0, 1.0], losses=[2.0, 2.0])
    near = runs("near", rates=[1.0, 1.0], losses=[2.009, 1.991])
    far = runs("far", rates=[1.0, 1.0], losses=[2.0, 1.989])
    assert math.isclose(apart(ours, far) or 0, 0.0055)
    assert not is_void(ours, near)
    assert is_void(ours, far)


def test_loss_that_is_not_a_number_is_void() -> None:
    ours = runs(OURS, rates=[1.0])
    assert is_void(ours, runs("broken", rates=[1.0], losses=[math.nan]))
    assert not is_void(ours, runs(FLOOR, rates=[1.0], losses=[None]))


def test_row_says_who_failed_and_who_is_void() -> None:
    reported = rows(
        [
            *runs(OURS, rates=[100.0, 100.0]),
            *runs("failing", rates=[None, 50.0], losses=[None, 2.0]),
            *runs("cheating", rates=[400.0, 400.0], losses=[2.5, 2.5]),
        ]
    )
    assert [row[0] for row in reported] == [OURS, "failing [1 of 2 FAILED]", "cheating [VOID]"]
    assert [row[7] for row in reported] == ["", "2.00 (2.00-2.00)", "0.25 (0.25-0.25)"]


def test_table_is_aligned_markdown() -> None:
    assert markdown(["arm", "x"], [["ours", "1"]]).splitlines() == ["| arm  | x |", "| ---- | - |", "| ours | 1 |"]
