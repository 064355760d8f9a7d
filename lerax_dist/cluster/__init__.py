"""Which process this is, which others there are, and how they agree, off the devices."""

from lerax_dist.cluster._child import imports_main_again as imports_main_again
from lerax_dist.cluster._current import choose_scope as choose_scope
from lerax_dist.cluster._current import current_group as current_group
from lerax_dist.cluster._current import process_place as process_place
from lerax_dist.cluster._departure import Departure as Departure
from lerax_dist.cluster._devices import choose_local_devices as choose_local_devices
from lerax_dist.cluster._devices import describe_devices as describe_devices
from lerax_dist.cluster._devices import with_counts as with_counts
from lerax_dist.cluster._group import Mailbox as Mailbox
from lerax_dist.cluster._group import ProcessGroup as ProcessGroup
from lerax_dist.cluster._group import SoloGroup as SoloGroup
from lerax_dist.cluster._initialize import has_proxy as has_proxy
from lerax_dist.cluster._initialize import initialize as initialize
from lerax_dist.cluster._jax_group import JaxGroup as JaxGroup
from lerax_dist.cluster._mpi_group import MPIGroup as MPIGroup
from lerax_dist.cluster._rendezvous import rendezvous_address as rendezvous_address
from lerax_dist.cluster._store import KeyPerProcess as KeyPerProcess
from lerax_dist.cluster._watchdog import watchdog as watchdog
from lerax_dist.cluster.launchers import LAUNCH_ID as LAUNCH_ID
from lerax_dist.cluster.launchers import Job as Job
from lerax_dist.cluster.launchers import Launch as Launch
from lerax_dist.cluster.launchers import current_job as current_job
from lerax_dist.cluster.launchers import detect as detect
from lerax_dist.cluster.launchers import hint_of_launch as hint_of_launch
from lerax_dist.cluster.launchers import list_variables as list_variables
