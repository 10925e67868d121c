"""The steps of a route, each in one short transaction; one file per noun."""
