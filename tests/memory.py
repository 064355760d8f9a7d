"""A backend that keeps what it is given."""

from lerax_dist import AbstractLoggingBackend


class Memory(AbstractLoggingBackend):
    """Keeps rows as `(step, scalars)` and every other call in order."""

    def __init__(self):
        self.rows = []
        self.calls = []

    def open(self, name):
        self.calls.append(("open", name))

    def on_training_start(self, total_timesteps, total_iterations):
        self.calls.append(("start", total_timesteps, total_iterations))

    def log_hparams(self, hparams):
        self.calls.append(("hparams", hparams))

    def log_scalars(self, scalars, step):
        self.rows.append((step, scalars))

    def log_video(self, tag, frames, step, fps):
        self.calls.append(("video", tag, frames.shape, step, fps))

    def close(self):
        self.calls.append(("close",))
