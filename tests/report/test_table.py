"""Tables as a reader sees them."""

from reid_cckd.report import format_table

ROWS = [
    {"name": "teacher", "mean_ap": 0.695, "parameters": 11234567, "ms": 3.1234},
    {"name": "a|b", "mean_ap": (0.5213, 0.004), "parameters": None, "ms": 0.0001},
]


def test_plain_text_is_aligned():
    assert format_table(ROWS, percent=("mean_ap",)).splitlines() == [
        "name          mAP %  parameters         ms",
        "-------  ----------  ----------  ---------",
        "teacher        69.5  11,234,567      3.123",
        "a|b      52.1 ± 0.4           -  1.000e-04",
    ]


def test_markdown_escapes_and_aligns():
    assert format_table(ROWS, {"name": "Run", "mean_ap": "mAP"}, percent=("mean_ap",), style="markdown") == (
        "| Run     |      mAP % |\n| ------- | ---------: |\n| teacher |       69.5 |\n| a\\|b    | 52.1 ± 0.4 |"
    )


def test_columns_choose_and_order():
    assert format_table(ROWS[:1], ["parameters", "name"]).splitlines()[0] == "parameters  name"


def test_missing_nan_and_flags():
    lines = format_table([{"a": float("nan"), "b": True, "c": float("inf")}, {"b": False}]).splitlines()
    assert [line.split() for line in lines[2:]] == [["-", "True", "inf"], ["-", "False", "-"]]


def test_no_rows_give_the_heading():
    assert format_table([], ["name"]) == "name\n----"


def test_a_single_value_has_no_deviation():
    assert format_table([{"mAP": (0.5, None)}, {"mAP": (0.5, 0.01)}], percent=["mAP"]).splitlines()[2:] == [
        "      50.0",
        "50.0 ± 1.0",
    ]
