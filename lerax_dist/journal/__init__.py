"""The journal of a run: the one primary copy, append-only, read by everything else."""
