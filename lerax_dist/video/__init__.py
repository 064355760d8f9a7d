"""Videos of the policy: rollouts in the step, frames on the host. Nothing here runs on import."""
