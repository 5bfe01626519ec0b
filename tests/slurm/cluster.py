"""A Slurm of one node, from Debian's packages slurmctld, slurmd, slurm-client and munge.

Everything that it writes is below one directory, and it is gone when the `with` ends. It must be
set up by root, who may have daemons start jobs:

    apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
    python tests/slurm/cluster.py    # a shell in it
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
CONFIG = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=6
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
ReturnToService=2
KillWait=20
InactiveLimit=0
MessageTimeout=30
SlurmdTimeout=300
SchedulerParameters=batch_sched_delay=1,sched_interval=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=off
"""


def missing() -> str:
    """What keeps a cluster from being set up here; empty if nothing does."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if absent:
        return f"no {', '.join(absent)}: install slurmctld, slurmd, slurm-client and munge"
    return "" if os.geteuid() == 0 else "only root can set a Slurm up"


@contextlib.contextmanager
def cluster(cpus: int = 2) -> Iterator[Mapping[str, str]]:
    """Set a Slurm up, yield the environment for its commands, and take it down again."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    folder.chmod(0o755)
    host = socket.gethostname().partition(".")[0]
    ports = dict(zip(("controller", "daemon"), _free_ports(2), strict=True))
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(host=host, folder=folder, cpus=cpus, **ports))
    for name in ("state", "spool"):
        (folder / name).mkdir()
    environment = {**os.environ, "SLURM_CONF": str(config), "PATH": PATH}
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.enter_context(_munge(folder, environment))
        stack.enter_context(_daemon(["slurmctld", "-D", "-f", str(config)], folder, environment))
        stack.enter_context(
            _daemon(["slurmd", "-D", "-N", host, "-f", str(config)], folder, environment)
        )
        _wait_for_node(environment, folder)
        stack.callback(_end_jobs, environment)
        yield environment


@contextlib.contextmanager
def _munge(folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    places = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log"}
    options = [f"--{option}={folder}/munge.{end}" for option, end in places.items()]
    line = ["munged", "--foreground", "--force", *options, f"--seed-file={folder}/munge.seed"]
    with _daemon(line, folder, environment):
        _wait(lambda: (folder / "munge.socket").exists(), "munged", folder)
        yield


@contextlib.contextmanager
def _daemon(line: list[str], folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    with open(folder / f"{line[0]}.out", "wb") as out:
        process = subprocess.Popen(line, env=environment, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_jobs(environment: Mapping[str, str], seconds: float = 30.0) -> None:
    """Let nothing of a job outlive the daemons."""
    line = ["scancel", "--full", "--signal=KILL", "--user=root"]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        subprocess.run(line, env=environment, check=False, capture_output=True)
        subprocess.run(["scancel", "--user=root"], env=environment, check=False)
        queue = ["squeue", "--noheader"]
        left = subprocess.run(queue, env=environment, check=False, capture_output=True)
        if left.returncode or not left.stdout.strip():
            return
        time.sleep(0.5)


def _wait_for_node(environment: Mapping[str, str], folder: Path) -> None:
    def idle() -> bool:
        line = ["sinfo", "--noheader", "--format=%T"]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
        return "idle" in done.stdout

    _wait(idle, "the node", folder)


def _wait(ready: Callable[[], bool], what: str, folder: Path, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            logs = {
                p.name: p.read_text(errors="replace")[-800:] for p in folder.glob("*.[lo][ou]*")
            }
            raise RuntimeError(f"{what} is not there after {seconds:.0f} s: {logs}")
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


if __name__ == "__main__":
    if problem := missing():
        raise SystemExit(problem)
    with cluster() as environment:
        subprocess.run([os.environ.get("SHELL", "/bin/sh")], env=environment, check=False)
