from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from lerax_dist.backends.console._columns import Item, beside, fit, fit_columns, group_items
from lerax_dist.backends.console._live import plain_lines
from lerax_dist.backends.console._view import printable


def columns(groups, width: int, height: int, aim: int) -> list[str]:
    return plain_lines(beside(fit_columns(groups, width, height, aim)), width)


def test_a_group_stays_together_where_it_can():
    items = [Item("name", "1")]
    groups = [("a", items * 6), ("b", items * 6), ("c", items * 2)]
    lines = columns(groups, width=100, height=30, aim=8)
    assert [word for word in lines[0].split()] == ["a", "b", "c"]


def test_names_are_grouped_by_prefix_in_order_of_appearance():
    names = ("train/a", "b", "x/y/z", "train/c")
    groups = group_items(Item(name, "1") for name in names)
    assert [(title, [item.name for item in items]) for title, items in groups] == [
        ("train", ["a", "c"]),
        ("", ["b"]),
        ("x", ["y/z"]),
    ]


def test_more_metrics_are_worth_more_than_their_courses():
    items = [Item(f"m{i}", "1", "", (("+1", ""), ("▁" * 12, ""))) for i in range(60)]
    few = columns([("", items)], width=99, height=20, aim=14)
    assert "".join(few).count("m") == 60
    assert "▁" not in "".join(few)
    many = [Item(f"m{i}", "1", "", (("+1", ""), ("▁" * 12, ""))) for i in range(400)]
    shown = columns([("", many)], width=99, height=20, aim=14)
    assert "▁" * 12 in shown[0]


@given(st.text(max_size=30), st.integers(1, 40))
def test_any_text_is_fitted_to_its_width(name, width):
    fitted = fit(printable(name), width)
    assert cell_len(fitted) == width
    assert fitted.isprintable()


def test_items_without_room_are_counted_and_each_column_begins_with_its_first():
    groups = [(title, [Item(f"{title}{i}", "1") for i in range(20)]) for title in "ab"]
    lines = columns(groups, width=40, height=11, aim=11)
    assert lines[0].split() == ["a", "b"]
    assert lines[1].split() == ["a0", "1", "b0", "1"]
    shown = sum(len(line.split()) // 2 for line in lines[1:-1])
    assert lines[-1].startswith(f"{40 - shown} more") and len(lines) == 11


def test_names_are_cut_in_one_column_only():
    items = [Item(f"a_name_that_is_far_too_long_{i}", "1") for i in range(9)]
    assert all("…" in line for line in columns([("", items)], width=30, height=20, aim=4))
    assert not any("…" in line for line in columns([("", items)], width=100, height=20, aim=4))
