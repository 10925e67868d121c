"""Refuses a file. Whoever finds a fault knows it alone; read.py, which counts the rows, makes an InputError of it.

BadRow      one row is at fault
NoAnswer    it has nothing to learn
BadFile     the file is, or the recipe's words on it
"""


class BadRow(Exception):
    """The problem, in words that go on after "row 3: "."""


class NoAnswer(BadRow):
    pass


class BadFile(Exception):
    """The problem, in words that go on after "the file "."""

    def __init__(self, problem: str, param: str = "dataset") -> None:
        super().__init__(problem)
        self.param = param
        """The field of the recipe that is at fault."""
