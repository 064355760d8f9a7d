"""The journal of a run: the one primary copy, append-only, read by everything else."""

from lerax_dist.journal._files import replace_file as replace_file
