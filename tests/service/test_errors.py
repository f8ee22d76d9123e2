"""The error tree and its HTTP table."""

from service import errors
from service.errors import PROBLEMS, ServiceError


def all_errors(root: type[ServiceError] = ServiceError) -> set[type[ServiceError]]:
    """Every class below the root."""
    return {below for child in root.__subclasses__() for below in {child} | all_errors(child)}


def test_every_error_is_in_the_table() -> None:
    """An error without a row would become a 500 that says nothing."""
    assert all_errors() == set(PROBLEMS)


def test_every_error_is_drawn_in_the_module_docstring() -> None:
    """The tree at the top is the tree below."""
    assert errors.__doc__ is not None
    assert [error.__name__ for error in PROBLEMS if error.__name__ not in errors.__doc__] == []


def test_error_types_are_distinct_and_only_overload_asks_to_retry() -> None:
    """A client tells errors apart by the type; 503 always says when to come back."""
    rows = PROBLEMS.values()
    assert len({row.error_type for row in rows}) == len(rows)
    assert all((row.retry_after_s is not None) == (row.status == 503) for row in rows)
