"""Live applications: what each of Burr's hooks means for spans and records."""
