import os

import numpy as np

from lerax_dist.backends import AbstractLoggingBackend, NoOpBackend


def test_it_takes_everything_and_writes_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    backend = NoOpBackend()
    assert isinstance(backend, AbstractLoggingBackend)
    backend.open("run")
    backend.log_hparams({"lr": 0.1})
    backend.log_scalars({"loss": np.array(1.0)}, 1)
    backend.log_video("v", np.zeros((1, 2, 2, 3), np.uint8), 1, 50.0)
    backend.close()
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr() == ("", "")
