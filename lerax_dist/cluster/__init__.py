"""Who is here and how they agree, off the devices."""

from ._current import current_group as current_group
from ._devices import choose_local_devices as choose_local_devices
from ._group import ProcessGroup as ProcessGroup
from ._group import SoloGroup as SoloGroup
from ._initialize import initialize as initialize
from ._jax_group import JaxGroup as JaxGroup
from ._launch import Launch as Launch
from ._launch import detect as detect
from ._mpi_group import MPIGroup as MPIGroup
