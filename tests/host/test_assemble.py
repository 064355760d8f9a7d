"""Parts of messages become rows.

A pure test of what the package keeps to itself; through the door see `test_rows.py`.
"""

import numpy as np
from lerax_dist.host._assemble import Assembler

from lerax_dist._failures import Failures
from lerax_dist.host._sink import Packet


class Sums:
    """Messages of two parts: a row for each, which is all that the parts hold.

    What an assembler has no business with raises.
    """

    names: tuple[str, ...] = ("x",)

    def combine(self, shares):
        raise NotImplementedError  # of `Gathering`

    def finish(self, rows):
        raise NotImplementedError  # of `Writer`

    def rows(self, bodies):
        return [[(int(row[0]) // 10, row.tolist())] for row in bodies]


SUMS, OTHERS = Sums(), Sums()


def part(place, number, body, message_format=SUMS):
    payload = np.array([number, body], np.int32)
    return Packet(message_format, place, 2, payload, 1, 0.0, 0.0)


def totals(assembler, *packets):
    return [share.totals for share in assembler.packets(packets)]


def test_a_row_is_there_with_its_last_part_in_whatever_order_they_come():
    assembler = Assembler(Failures())
    assert totals(assembler, part(1, 1, 11), part(0, 2, 20)) == []
    assert totals(assembler, part(0, 1, 10), part(1, 2, 21)) == [[10, 11], [20, 21]]


def test_a_part_of_a_training_that_died_is_not_mixed_into_the_next():
    assembler = Assembler(Failures())
    assert totals(assembler, part(1, 1, 111)) == []
    assembler.restart(1)
    assert totals(assembler, part(0, 1, 10)) == []
    assert totals(assembler, part(1, 1, 11)) == [[10, 11]]


def test_parts_of_other_metrics_in_the_same_iteration_are_kept_apart():
    assembler = Assembler(Failures())
    assert totals(assembler, part(0, 1, 10), part(1, 1, 12, OTHERS)) == []
    assert totals(assembler, part(1, 1, 11)) == [[10, 11]]
    assert totals(assembler, part(0, 1, 19, OTHERS)) == [[19, 12]]
