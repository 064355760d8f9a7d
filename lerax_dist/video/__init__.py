"""Video of the policy: rollouts in the compiled step, frames on the host. Importing runs nothing.

In the step, on one device and only when a clip is due, `_rollout` plays the policy, `_render`
reduces the states to what drawing needs, and `_pytree_bits` packs that into int32 words. On the
host, in the thread of `host/_clips.py`, the words become states again and `_render` draws each one.
"""

from lerax_dist.video._record import Recorder as Recorder
from lerax_dist.video._record import UserHooks as UserHooks
from lerax_dist.video._record import check_settings as check_settings
from lerax_dist.video._render import Render as Render
from lerax_dist.video._rollout import Act as Act
from lerax_dist.video._rollout import Rollout as Rollout
