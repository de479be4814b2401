"""The fault matrix is whole: every row has a test that says what holds, and the page tells of all of them."""

from __future__ import annotations

from tests.support import matrix


def test_every_row_has_a_test() -> None:
    assert set(matrix.rows()) <= {each.row for each in matrix.held()}


def test_every_test_of_a_row_says_what_holds() -> None:
    silent = [each for each in matrix.held() if each.row in matrix.rows() and not each.says]
    assert silent == []


def test_no_test_is_of_a_row_that_there_is_not() -> None:
    assert {each.row for each in matrix.held()} <= set(matrix.rows())


def test_the_page_is_current() -> None:
    assert matrix.PAGE.read_text("utf-8") == matrix.page()
