"""Who is here and how they agree, off the devices."""

from lerax_dist.cluster._current import choose_scope as choose_scope
from lerax_dist.cluster._current import current_group as current_group
from lerax_dist.cluster._current import find_place as find_place
from lerax_dist.cluster._devices import choose_local_devices as choose_local_devices
from lerax_dist.cluster._group import ProcessGroup as ProcessGroup
from lerax_dist.cluster._group import SoloGroup as SoloGroup
from lerax_dist.cluster._hardware import see_devices as see_devices
from lerax_dist.cluster._hardware import with_counts as with_counts
from lerax_dist.cluster._initialize import initialize as initialize
from lerax_dist.cluster._jax_group import JaxGroup as JaxGroup
from lerax_dist.cluster._launch import Launch as Launch
from lerax_dist.cluster._launch import detect as detect
from lerax_dist.cluster._mailbox import Mailbox as Mailbox
from lerax_dist.cluster._mpi_group import MPIGroup as MPIGroup
