"""The journal of a run: the one primary copy, append-only, read by everything else."""

from lerax_dist.journal._journal import Journal as Journal
from lerax_dist.journal._journal import JournalInUse as JournalInUse
from lerax_dist.journal._read_run import RunData as RunData
from lerax_dist.journal._read_run import journal_of as journal_of
from lerax_dist.journal._read_run import read_run as read_run
from lerax_dist.journal._reader import JOURNAL as JOURNAL
from lerax_dist.journal._reader import Damage as Damage
from lerax_dist.journal._reader import Ends as Ends
from lerax_dist.journal._reader import JournalReader as JournalReader
from lerax_dist.journal._reader import own_metrics as own_metrics
from lerax_dist.journal._reader import read_ends as read_ends
from lerax_dist.journal._reader import state_of as state_of
from lerax_dist.journal._reader import step_and_names as step_and_names
from lerax_dist.journal._record import Event as Event
from lerax_dist.journal._record import JournalFormatError as JournalFormatError
from lerax_dist.journal._record import Record as Record
from lerax_dist.journal._record import Row as Row
from lerax_dist.journal._record import Rows as Rows
from lerax_dist.journal._record import decode as decode
from lerax_dist.journal._record import encode as encode
from lerax_dist.journal._run_file import Heartbeat as Heartbeat
from lerax_dist.journal._run_file import Identity as Identity
from lerax_dist.journal._run_file import Liveness as Liveness
from lerax_dist.journal._run_file import replace_file as replace_file
from lerax_dist.journal._run_file import take_identity as take_identity
