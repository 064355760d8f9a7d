"""Makes a logger at module level, which spawned workers import again. Argument: log_dir."""

import multiprocessing
import sys

import lerax_dist as ld

logger = ld.Logger(ld.NoOpBackend(), log_dir=sys.argv[1])


def work(number: int) -> str:
    logger.log({"loss": 1.0}, number)
    return f"{logger.name!r} {logger.failures[0].where}"


if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print(sorted(set(pool.map(work, range(4)))))
    logger.log({"loss": 0.0}, 0)
    logger.close()
