"""Check: which processes joined, and whether the launcher agrees."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

from lerax_dist.cli.doctor._check import AbstractCheck, Context, Finding, Shown
from lerax_dist.cluster import has_proxy, hint_of_launch, joined_address, list_variables


@final
@dataclass(frozen=True)
class Process:
    """A process that joined."""

    index: int  # its process index
    host: str  # name of its host
    pid: int  # its process id
    launcher: str  # what started it, by its environment
    why: str  # the variables that show it
    start_with: str  # command that starts several processes in this job, if it was not used
    launch_index: int | None  # process index by the launcher; `None` if it gives none
    launch_count: int | None  # process count by the launcher
    coordinator: str | None  # "host:port"; `None` if this is a single process
    notes: list[str]  # warnings logged while it joined
    variables: str  # what looks like a launcher's, with values
    hint: str  # those of them by which an unknown launcher started several processes
    no_grpc_proxy: str  # where gRPC uses no proxy; empty if no proxy is set


@final
class LaunchCheck(AbstractCheck[Process]):
    """The processes, as they joined and as their launcher counts them."""

    key = "processes"
    fact = Process

    def collect(self, context: Context) -> Process:
        return Process(
            index=context.group.process_index,
            host=context.group.hostname,
            pid=os.getpid(),
            launcher=context.launch.launcher,
            why=context.launch.evidence,
            start_with=context.launch.start_with,
            launch_index=context.launch.process_index,
            launch_count=context.launch.process_count,
            coordinator=joined_address() or None,
            notes=[*context.notes],
            variables=list_variables(os.environ),
            hint=hint_of_launch(os.environ),
            no_grpc_proxy=os.environ.get("no_grpc_proxy", "") if has_proxy(os.environ) else "",
        )

    def judge(self, facts: Sequence[Process], hosts: Sequence[str]) -> Iterator[Finding]:
        for process in facts:
            name = f"process {process.index} of {len(facts)} (host {process.host})"
            launched = (process.launch_index, process.launch_count)
            joined = (process.index, len(facts))
            if None not in launched and launched != joined and process.launcher != "explicit":
                yield Finding(
                    "problem",
                    f"{name} was started by its launcher as process {launched[0]} of "
                    f"{launched[1]} ({process.launcher}: {process.why})",
                    "unset these variables if they were inherited, e.g. over ssh, or start all "
                    "processes with one launcher",
                )
            for note in process.notes:
                yield Finding("warning", f"{name}: {note}", "")
        if facts[0].no_grpc_proxy and len(facts) > 1:
            yield Finding(
                "hint",
                "a proxy is set, through which gRPC would look for the coordinator; `initialize()` "
                "excludes the coordinator's host, `jax.distributed.initialize()` does not",
                f"in a program that does not call `initialize()` set "
                f"no_grpc_proxy={facts[0].no_grpc_proxy}",
            )
        if len(facts) == 1 and facts[0].launcher == "solo" and facts[0].hint:
            yield Finding(
                "warning",
                f"this is a single process, but {facts[0].hint} looks like one of several",
                'join them by `initialize("HOST:PORT", num_processes, process_id)`, or set '
                "LERAX_DIST_COORDINATOR_ADDRESS, LERAX_DIST_NUM_PROCESSES and "
                "LERAX_DIST_PROCESS_ID; else each would write a run of its own",
            )
        if len(facts) == 1 and facts[0].start_with:
            yield Finding(
                "warning",
                f"this is a single process in a job, not started by {facts[0].start_with} "
                f"({facts[0].why})",
                f"start it with `{facts[0].start_with}` if the training uses several processes",
            )

    def show(self, facts: Sequence[Process]) -> Iterator[Shown]:
        yield "process", [str(process.index) for process in facts]
        yield "host", [process.host for process in facts]
        yield "pid", [str(process.pid) for process in facts]
        hosts = len({process.host for process in facts})
        size = f"{len(facts)} processes on {hosts} {'host' if hosts == 1 else 'hosts'}"
        size = "one process" if len(facts) == 1 else size
        yield "launch", f"{size}; {facts[0].launcher}: {facts[0].why}"
        if facts[0].variables:
            yield "variables", facts[0].variables
        if facts[0].coordinator:
            yield "coordinator", facts[0].coordinator
