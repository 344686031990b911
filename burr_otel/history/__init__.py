"""Records of a log -> a tree of runs, sessions, steps and inner spans: the one reading of a log."""
