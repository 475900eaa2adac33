"""What a program does for each request, counted by callgrind once the program is warm: instructions, calls of the memory
allocator, and which functions they come from."""

import collections
import pathlib
import re
import subprocess
import sys

# The functions that return new memory: of the C library, and of jemalloc with the prefix that Rust's binding gives it.
ALLOCATORS = {
    *("malloc", "calloc", "realloc", "reallocarray", "memalign", "aligned_alloc", "posix_memalign", "valloc", "pvalloc"),
    *(f"_rjem_{name}" for name in (
        "malloc", "mallocx", "calloc", "realloc", "rallocx", "aligned_alloc", "posix_memalign", "memalign", "valloc",
    )),
}
# How many callers are recorded for each call of an allocator.
DEPTH = 12
# Functions between an allocation and the code that asked for it.
PLUMBING = re.compile(r"""
    ^_?_*rust | __rustc | ^__rg_ | ^__rdl_ | alloc::raw_vec | finish_grow | ^alloc::alloc:: | ^alloc::vec::Vec | ^alloc::string
    | ^<alloc::(vec|boxed|string) | hashbrown::raw | ^bytes:: | ^<bytes:: | ^ngx_(alloc|calloc|memalign)$
    | alloc::slice | ^alloc::sync::Arc
""", re.X)


class Profile:
    """Sums over a part of a run."""

    def __init__(self):
        self.instructions = collections.Counter()  # by function, without its callees
        self.allocations = collections.Counter()  # by the functions that called, innermost first

    @classmethod
    def read(cls, file):
        profile, names, function, called, inclusive, total = cls(), {}, None, None, False, None

        def name(text):
            number, _, given = text.partition(" ")
            return names.setdefault(number, given)

        for line in file.open(errors="replace"):
            line = line.rstrip("\n")
            if line.startswith("fn="):
                function = name(line[3:])
            elif line.startswith("cfn="):
                called = name(line[4:])
            elif line.startswith("calls="):
                profile.count_call(called, int(line[6:].split()[0]))
                inclusive = True
            elif line.startswith("totals: "):
                total = int(line[8:])
            elif line.startswith(("+", "-", "*")) or line[:1].isdigit():
                # The line after a call has the cost of the callee, which the callee's own lines have as well.
                if not inclusive:
                    profile.instructions[plain(function)] += int(line.split()[1])
                inclusive = False
        if sum(profile.instructions.values()) != total:
            sys.exit(f"{file} adds up to {sum(profile.instructions.values())} instructions, not to {total}")
        return profile

    def count_call(self, called, count):
        function, *callers = called.split("'")
        # If one allocator calls another one, only the outer call is counted.
        if function in ALLOCATORS and not ALLOCATORS.intersection(callers):
            self.allocations[tuple(map(without_hash, callers))] += count

    def per_request(self, shorter, requests):
        """The difference to a shorter run, for each of the requests that it has more."""
        result = Profile()
        for field in ("instructions", "allocations"):
            longer, less, into = (getattr(profile, field) for profile in (self, shorter, result))
            for key in longer.keys() | less.keys():
                into[key] = (longer[key] - less[key]) / requests
        return result

    def hottest(self, count):
        return self.instructions.most_common(count)

    def sites(self):
        """Allocations by the code that asked for them, and through which library function."""
        sites = collections.Counter()
        for callers, count in self.allocations.items():
            own = [caller for caller in callers if not PLUMBING.search(caller)] or list(callers)
            through = callers[:callers.index(own[0])]
            sites[" < ".join(own[:3]) + (f" (through {through[-1]})" if through else "")] += count
        return sites.most_common()


def plain(function):
    return without_hash(function.partition("'")[0])


def without_hash(function):
    return re.sub(r"::h[0-9a-f]{16}$", "", function)


def wrapper(out):
    """What a program is started by to be counted."""
    return [
        "valgrind", "--tool=callgrind", f"--callgrind-out-file={out}",
        *(f"--separate-callers{DEPTH}={function}" for function in sorted(ALLOCATORS)),
    ]


class Counted:
    """A running program under callgrind, whose counts are taken part by part."""

    def __init__(self, pid, out):
        self.pid, self.out, self.part = pid, out, 0

    def take(self):
        """What has been counted since the last time."""
        run = subprocess.run(["callgrind_control", f"--dump={self.part}", str(self.pid)], capture_output=True, text=True)
        self.part += 1
        file = pathlib.Path(f"{self.out}.{self.part}")
        if run.returncode or not file.exists():
            sys.exit(f"callgrind wrote no counts:\n{run.stdout}{run.stderr}")
        return Profile.read(file)
