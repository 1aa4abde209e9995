"""Which system calls a process may make: a seccomp filter (seccomp(2)) in classic BPF.

Denied is what no network needs and an attacker does: new processes and programs, sockets, signals to others, other
processes' memory and limits, owners and modes of files, mounts, keys, kernel modules. A denied call fails with EPERM;
clone3 and io_uring "do not exist", so that the C library falls back to calls whose arguments a filter can see.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from workers.sandbox.kernel import MACHINE, call

_SECCOMP = {"x86_64": 317, "aarch64": 277}
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
_SET_FILTER, _ALL_THREADS = 1, 1
_CLONE_THREAD = 0x00010000
_X32 = 0x40000000  # a second table of calls on x86_64

_ABSENT = (319, 279), (447, 447), (425, 425), (426, 426), (427, 427), (435, 435)
"""memfd_create, memfd_secret (memory that no limit counts), io_uring_*, clone3: (x86_64, aarch64)."""

_DENIED = (
    (41, 198),  # socket
    (53, 199),  # socketpair
    (57, None),  # fork
    (58, None),  # vfork
    (59, 221),  # execve
    (322, 281),  # execveat
    (29, 194),  # shmget
    (64, 190),  # semget
    (68, 186),  # msgget
    (240, 180),  # mq_open
    (206, 0),  # io_setup
    (253, None),  # inotify_init: Landlock does not hide what happens in other folders
    (294, 26),  # inotify_init1
    (300, 262),  # fanotify_init
    (103, 116),  # syslog
    (101, 117),  # ptrace
    (310, 270),  # process_vm_readv
    (311, 271),  # process_vm_writev
    (438, 438),  # pidfd_getfd
    (434, 434),  # pidfd_open
    (424, 424),  # pidfd_send_signal
    (200, 130),  # tkill
    (129, 138),  # rt_sigqueueinfo
    (297, 240),  # rt_tgsigqueueinfo
    (272, 97),  # unshare
    (308, 268),  # setns
    (165, 40),  # mount
    (166, 39),  # umount2
    (155, 41),  # pivot_root
    (161, 51),  # chroot
    (428, 428),  # open_tree
    (429, 429),  # move_mount
    (430, 430),  # fsopen
    (432, 432),  # fsmount
    (442, 442),  # mount_setattr
    (304, 265),  # open_by_handle_at
    (321, 280),  # bpf
    (298, 241),  # perf_event_open
    (323, 282),  # userfaultfd
    (250, 219),  # keyctl
    (248, 217),  # add_key
    (249, 218),  # request_key
    (246, 104),  # kexec_load
    (175, 105),  # init_module
    (313, 273),  # finit_module
    (176, 106),  # delete_module
    (169, 142),  # reboot
    (167, 224),  # swapon
    (90, None),  # chmod: Landlock does not hold it back
    (91, 52),  # fchmod
    (268, 53),  # fchmodat
    (452, 452),  # fchmodat2
    (92, None),  # chown
    (94, None),  # lchown
    (93, 55),  # fchown
    (260, 54),  # fchownat
    (188, 5),  # setxattr
    (189, 6),  # lsetxattr
    (190, 7),  # fsetxattr
    (463, 463),  # setxattrat
    (197, 14),  # removexattr
    (198, 15),  # lremovexattr
    (199, 16),  # fremovexattr
    (466, 466),  # removexattrat
    (132, None),  # utime: nor times of files
    (235, None),  # utimes
    (261, None),  # futimesat
    (280, 88),  # utimensat
    (144, 119),  # sched_setscheduler
    (142, 118),  # sched_setparam
    (314, 274),  # sched_setattr
    (141, 140),  # setpriority
    (251, 30),  # ioprio_set
)
_CLONE = (56, 220)
_TO_ITSELF = (62, 129), (234, 131)  # kill, tgkill
_OF_ITSELF = (302, 261), (203, 122)  # prlimit64, sched_setaffinity; 0 is the caller
_FCNTL, _OF_FCNTL = (72, 25), (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: any signal to anybody
_PRCTL, _OF_PRCTL = (157, 167), (1, 4)  # PR_SET_PDEATHSIG, PR_SET_DUMPABLE: to outlive its worker, to hide from it

# classic BPF: linux/filter.h, linux/bpf_common.h
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _FIRST_ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24  # offsets in struct seccomp_data
_ALLOW, _FAIL, _KILL = 0x7FFF0000, 0x00050000, 0x80000000


def restrict() -> None:
    """Installs the filter for all threads and all that they start; raises OSError. Needs `no_new_privs`."""
    if MACHINE not in _ARCHITECTURE:
        raise OSError(f"no filter is written for {MACHINE}")
    program = b"".join(struct.pack("=HBBI", *step) for step in _program())
    steps = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(steps))
    call(_SECCOMP[MACHINE], _SET_FILTER, _ALL_THREADS, header)


def _program() -> list[tuple[int, int, int, int]]:
    column = 0 if MACHINE == "x86_64" else 1
    program = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, _ARCHITECTURE[MACHINE]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if column == 0:
        program += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _FAIL | errno.EPERM)]
    for calls, answer in ((_ABSENT, errno.ENOSYS), (_DENIED, errno.EPERM)):
        for numbers in calls:
            if (number := numbers[column]) is not None:
                program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _FAIL | answer)]
    program += _only_if(_CLONE[column], (_ANY_BIT, _CLONE_THREAD))
    for numbers in _TO_ITSELF:
        program += _only_if(numbers[column], (_EQUAL, os.getpid()))
    for numbers in _OF_ITSELF:
        program += _only_if(numbers[column], (_EQUAL, 0))
    program += _unless(_FCNTL[column], _SECOND_ARGUMENT, _OF_FCNTL)
    program += _unless(_PRCTL[column], _FIRST_ARGUMENT, _OF_PRCTL)
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def _only_if(number: int, condition: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """The call is allowed where its first argument meets the condition, and else fails with EPERM."""
    return [
        (_EQUAL, 0, 4, number),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (condition[0], 0, 1, condition[1]),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _FAIL | errno.EPERM),
    ]


def _unless(number: int, argument: int, values: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """The call fails with EPERM where its argument is one of the values, and else is allowed."""
    refused = [step for value in values for step in ((_EQUAL, 0, 1, value), (_RETURN, 0, 0, _FAIL | errno.EPERM))]
    return [(_EQUAL, 0, 2 + len(refused), number), (_LOAD, 0, 0, argument), *refused, (_RETURN, 0, 0, _ALLOW)]
