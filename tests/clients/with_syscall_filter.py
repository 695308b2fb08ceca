"""Runs a program under what a unit of systemd denies it, as far as seccomp does that.

    with_syscall_filter.py UNIT PROGRAM ARGUMENT...

Reads SystemCallFilter=, SystemCallErrorNumber=, RestrictAddressFamilies= and
MemoryDenyWriteExecute= from the unit; `systemd-analyze syscall-filter` says what is in a set.
"""

import errno
import mmap
import os
import socket
import subprocess
import sys

import seccomp

unit, *command = sys.argv[1:]
settings = []
with open(unit) as file:
    for line in file:
        key, separator, value = line.strip().partition("=")
        if separator and not key.startswith("#"):
            settings.append((key, value))


def of(key):
    return [value for name, value in settings if name == key]


def members(name):
    """The system calls of a set, or the one of that name."""
    if not name.startswith("@"):
        return {name}
    words = ["systemd-analyze", "syscall-filter", "--no-pager", name]
    text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    lines = [line.strip() for line in text.splitlines()[1:]]
    found = set()
    for line in lines:
        if line and not line.startswith("#"):
            found |= members(line)
    return found


allowed = members("@default")
for value in of("SystemCallFilter"):
    denies = value.startswith("~")
    for name in value.lstrip("~").split():
        allowed = allowed - members(name) if denies else allowed | members(name)
# As systemd has it: it is always permitted.
allowed |= members("@default")
assert len(allowed) > 100, allowed

(number,) = of("SystemCallErrorNumber")
denied = seccomp.ERRNO(getattr(errno, number))
filter = seccomp.SyscallFilter(defaction=denied)
families = {int(getattr(socket, name)) for name in " ".join(of("RestrictAddressFamilies")).split()}
assert of("MemoryDenyWriteExecute") == ["yes"]
PROT_EXEC, PROT_WRITE = mmap.PROT_EXEC, mmap.PROT_WRITE
for name in sorted(allowed):
    try:
        match name:
            case "socket":
                for family in families:
                    filter.add_rule(seccomp.ALLOW, name, seccomp.Arg(0, seccomp.EQ, family))
            case "mmap":
                both = PROT_EXEC | PROT_WRITE
                for protection in [0, PROT_EXEC, PROT_WRITE]:
                    is_it = seccomp.Arg(2, seccomp.MASKED_EQ, both, protection)
                    filter.add_rule(seccomp.ALLOW, name, is_it)
            case "mprotect" | "pkey_mprotect":
                no_code = seccomp.Arg(2, seccomp.MASKED_EQ, PROT_EXEC, 0)
                filter.add_rule(seccomp.ALLOW, name, no_code)
            case _:
                filter.add_rule(seccomp.ALLOW, name)
    except (RuntimeError, OSError):
        pass  # a system call of another architecture, or one that libseccomp does not know
filter.load()
os.execvp(command[0], command)
