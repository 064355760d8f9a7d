"""Makes the pictures of the README: a run of the demo in a terminal, and TensorBoard on its log.

    make pictures

It runs the PPO example in two processes, the first of them in a pseudo-terminal, whose screen is
drawn as an SVG; once more with another learning rate; then TensorBoard on the log of both runs,
photographed by Chromium without a window.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote

from _svg import draw
from _terminal import record
from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PPO = [sys.executable, str(ROOT / "examples" / "ppo_cartpole.py"), "--name"]
EXAMPLE = [*PPO, "demo", "--video-interval", "16"]
TAGS = quote("episode/(return|return_min|length)$|train/(loss|entropy|value_loss)$", "")
# What TensorBoard shows under each of its tabs: picture, and the place in its address.
TABS = {
    "tensorboard": f"scalars&_smoothingWeight=0&tagFilter={TAGS}",
    "tensorboard_band": "custom_scalars",
    "tensorboard_hparams": "hparams",
    "tensorboard_video": "images",
}
COLUMNS, ROWS = 110, 40
AT_PERCENT = 80.0
LIMIT = 900.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def place(index: int, address: str) -> dict[str, str]:
    """Variables of one of two processes with two devices each."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "LERAX_DIST_COORDINATOR_ADDRESS": address,
        "LERAX_DIST_NUM_PROCESSES": "2",
        "LERAX_DIST_PROCESS_ID": str(index),
        "TERM": "xterm-256color",
    }


def console(folder: Path) -> None:
    """`mpirun` gives its processes no terminal with a size, so these are started one by one."""
    address = f"127.0.0.1:{free_port()}"
    with subprocess.Popen(EXAMPLE, cwd=folder, env=place(1, address)) as other:
        try:
            env = place(0, address)
            screen = record(EXAMPLE, folder, env, (COLUMNS, ROWS), AT_PERCENT, LIMIT)
            other.wait(LIMIT)
        finally:
            other.kill()
    # From the line with the run's name on: what scrolls away above is no part of the display.
    first = max(place for place, line in enumerate(screen.display) if line.startswith("demo "))
    (HERE / "console.svg").write_text(draw(screen, first))


def second_run(folder: Path) -> None:
    """A run with another learning rate, for the tab in which runs compare."""
    command = [*PPO, "slower", "--no-console", "--learning-rate", "0.0005"]
    subprocess.run(command, cwd=folder, check=True, timeout=LIMIT, env=alone(), capture_output=True)


def alone() -> dict[str, str]:
    """Variables of a run in one process with four devices."""
    devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    return {**os.environ, "PYTHONPATH": str(ROOT), **devices}


def tensorboard(log_dir: Path) -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))))
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", log_dir.name]
    with subprocess.Popen([*command, "--port", str(port)], cwd=log_dir.parent) as server:
        try:
            wait_for(f"{address}/data/runs")
            for name, place in TABS.items():
                photograph(chromium, f"{address}/#{place}", HERE / f"{name}.png")
        finally:
            server.terminate()


def photograph(chromium: str, url: str, picture: Path) -> None:
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    options += ["--window-size=1440,720", "--virtual-time-budget=60000"]
    chrome = [chromium, *options, f"--screenshot={picture}", url]
    subprocess.run(chrome, check=True, timeout=LIMIT, capture_output=True)
    # A palette is enough for it, and a quarter of the size.
    Image.open(picture).convert("RGB").quantize(128).save(picture, optimize=True)


def wait_for(url: str) -> None:
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                if "demo" in answer.read().decode():
                    return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise SystemExit(f"{url} did not answer within {LIMIT:g} s")
        time.sleep(0.5)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        console(Path(folder))
        second_run(Path(folder))
        tensorboard(Path(folder) / "logs")
    for picture in ("console.svg", *(f"{name}.png" for name in TABS)):
        print(f"{HERE / picture}: {(HERE / picture).stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
