"""In the place of pandas for programs that do without: Burr imports it, which takes half their time."""

raise ImportError("this program does without pandas (tests/without_pandas)")
