"""A program that runs one Python file with limits that it cannot lift again.

It is no part of the process that starts it: its text is given to ``python -c``, so that it imports
the standard library alone. What is wanted stands on its standard input as JSON:

    file      what to run; its folder, the working directory, is where it may write
    seconds   of CPU
    bytes     of memory
    confine   ``full``: as below, or not at all; ``limits``: seconds and memory alone
    token     is written to standard output once the file has run to its end

``full`` (Linux on x86-64 and ARM64) leaves the file no sockets, no other processes, no signals, no
changes of modes, owners, attributes, priorities or the limits of others, no memory or queues that
outlive it (seccomp), and no writing outside its folder (Landlock 3, Linux 6.2). It may read what
its user may read. What it wants to deceive, it deceives: the token is in its own process.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import struct
import sys

__all__ = ["NOT_CONFINED", "confine", "main"]

NOT_CONFINED = "not confined: "
"""How standard output begins where ``full`` cannot be kept."""

_MOST_BYTES_PER_FILE = 1 << 26
_MOST_FILES = 256

# Landlock: what may be handled, by version; see the kernel's userspace-api/landlock.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_LEAST_VERSION = 3  # knows truncation
_WRITES = sum(1 << bit for bit in (1, *range(4, 15)))  # files, folders, links; all but reading
_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2

# seccomp: (audit architecture, clone, prlimit64, calls that are refused), by machine.
_SHARED = (424, 425, 427, 452)  # pidfd_send_signal, io_uring_setup and _register, fchmodat2
_X86_64 = (
    *(41, 57, 58),  # socket, fork, vfork
    *(62, 200, 234, 129, 297),  # kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo
    *(101, 310, 311),  # ptrace, process_vm_readv, process_vm_writev
    *(90, 91, 268, 92, 93, 94, 260),  # chmod, fchmod, fchmodat, chown, fchown, lchown, fchownat
    *(188, 189, 190, 197, 198, 199),  # setxattr and removexattr
    *(141, 142, 144, 203, 251, 314),  # setpriority, sched_set..., ioprio_set
    *(29, 64, 68, 240),  # shmget, semget, msgget, mq_open
)
_ARM64 = (
    *(198, 129, 130, 131, 138, 240),  # socket; kill and the like
    *(117, 270, 271),  # ptrace, process_vm_readv, process_vm_writev
    *(52, 53, 54, 55),  # fchmod, fchmodat, fchownat, fchown
    *(5, 6, 7, 14, 15, 16),  # setxattr and removexattr
    *(140, 118, 119, 122, 30, 274),  # setpriority, sched_set..., ioprio_set
    *(194, 190, 186, 180),  # shmget, semget, msgget, mq_open
)
_MACHINES = {
    "x86_64": (0xC000003E, 56, 302, _X86_64),
    "aarch64": (0xC00000B7, 220, 261, _ARM64),
}
_CLONE3, _CLONE_THREAD, _X32 = 435, 0x10000, 0x40000000
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


def main() -> None:
    """Run the file, and say so if it came to its end; everything it prints is dropped."""
    wanted = json.loads(sys.stdin.read())
    out, nothing = os.dup(1), os.open(os.devnull, os.O_RDWR)
    _limit(wanted["seconds"], wanted["bytes"])
    if wanted["confine"] == "full":
        try:
            confine(os.path.dirname(wanted["file"]))
        except OSError as err:
            os.write(out, f"{NOT_CONFINED}{err}".encode())
            os._exit(1)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    with open(wanted["file"], encoding="utf-8") as file:
        code = compile(file.read(), "answer.py", "exec")
    exec(code, {"__name__": "__main__"})
    os.write(out, wanted["token"].encode())
    os._exit(0)


def confine(folder: str) -> None:
    """Keep this process from writing outside a folder, from sockets and from other processes.

    Raises:
        OSError: This machine cannot.
    """
    if sys.platform != "linux":
        raise OSError("only Linux knows how")
    _call("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _keep_writing_in(folder)
    _refuse_calls()


def _limit(seconds: float, size: int) -> None:
    whole = max(1, int(seconds + 0.999))
    limits = {
        resource.RLIMIT_CPU: whole,
        resource.RLIMIT_AS: size,
        resource.RLIMIT_FSIZE: _MOST_BYTES_PER_FILE,
        resource.RLIMIT_NOFILE: _MOST_FILES,
        resource.RLIMIT_CORE: 0,
    }
    for kind, limit in limits.items():
        hard = resource.getrlimit(kind)[1]
        least = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (least, least))


def _keep_writing_in(folder: str) -> None:
    try:
        version = _call("syscall", _CREATE_RULESET, 0, 0, 1)
    except OSError as err:
        raise OSError(f"this system has no Landlock ({err.strerror})") from None
    if version < _LEAST_VERSION:
        raise OSError(f"expected Landlock {_LEAST_VERSION} (Linux 6.2), found {version}")
    handled = ctypes.create_string_buffer(struct.pack("Q", _WRITES))
    ruleset = _call("syscall", _CREATE_RULESET, handled, 8, 0)
    for place, allowed in ((folder, _WRITES), (os.devnull, _WRITE_FILE | _TRUNCATE)):
        opened = os.open(place, os.O_PATH | os.O_CLOEXEC)
        rule = ctypes.create_string_buffer(struct.pack("=Qi", allowed, opened))
        _call("syscall", _ADD_RULE, ruleset, 1, rule, 0)
        os.close(opened)
    _call("syscall", _RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _refuse_calls() -> None:
    machine = os.uname().machine
    if machine not in _MACHINES or sys.maxsize < 1 << 32:
        raise OSError(f"no calls are known for {machine}")
    architecture, clone, limit, refused = _MACHINES[machine]
    steps = [
        (_LOAD, 0, 0, 4),  # the architecture
        *_unless(_EQUAL, architecture, _KILL),
        (_LOAD, 0, 0, 0),  # the number of the call
        *_when(_AT_LEAST, _X32, _EPERM),
        *_when(_EQUAL, _CLONE3, _ENOSYS),  # so that the C library takes clone
        *(step for number in (*refused, *_SHARED) for step in _when(_EQUAL, number, _EPERM)),
        (_EQUAL, 0, 4, limit),
        (_LOAD, 0, 0, 16),  # its first argument: whose limits
        *_when(_EQUAL, 0, _ALLOW),  # its own
        (_RETURN, 0, 0, _EPERM),
        *_unless(_EQUAL, clone, _ALLOW),
        (_LOAD, 0, 0, 16),  # its first argument
        *_unless(_ANY_BIT, _CLONE_THREAD, _EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    address = ctypes.addressof(program)
    whole = ctypes.create_string_buffer(struct.pack("@HP", len(steps), address))
    _call("prctl", _SET_SECCOMP, _FILTER, whole, 0, 0)


def _when(test: int, value: int, result: int) -> list[tuple[int, int, int, int]]:
    return [(test, 0, 1, value), (_RETURN, 0, 0, result)]


def _unless(test: int, value: int, result: int) -> list[tuple[int, int, int, int]]:
    return [(test, 1, 0, value), (_RETURN, 0, 0, result)]


def _call(name: str, *arguments: object) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    as_c = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    function = getattr(library, name)
    function.restype = ctypes.c_long
    result = int(function(*as_c))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


if __name__ == "__main__":
    main()
