"""Errors for a file. The code that finds a fault does not know the row's number; read.py counts the rows and makes an
InputError of it.

BadRow      one row is at fault
NoAnswer    the row has nothing to learn
BadFile     the file is at fault, or what the recipe says about it
"""


class BadRow(Exception):
    """The problem, as it continues "row 3: "."""


class NoAnswer(BadRow):
    pass


class BadFile(Exception):
    """The problem, as it continues "the file "."""

    def __init__(self, problem: str, param: str = "dataset") -> None:
        super().__init__(problem)
        self.param = param
        """The recipe's field that is at fault."""
