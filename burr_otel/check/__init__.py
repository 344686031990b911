"""Why does nothing arrive? What is set, one test trace, the answer, and what to change."""
